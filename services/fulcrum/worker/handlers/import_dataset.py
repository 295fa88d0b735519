"""`import_dataset`: images of a folder that the administrator allowed become artifacts, and the record ready."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.hygiene import assign_splits, inspect_dataset
from fulcrum.datasets.samples import Dataset
from fulcrum.datasets.stored import write_manifest
from fulcrum.domain.errors import InternalError, InvalidDataset
from fulcrum.domain.jobs import ImportDataset, Shard, ShardResult
from fulcrum.worker.datasets import record_of
from fulcrum.worker.work import Work

SHARES = {"discover": 0.4, "select": 0.2, "confirm": 0.4}
MAX_UNREADABLE_SHARE = 0.05  # beyond that it is not the data set that somebody meant
_NAMED = 20  # unreadable images that the result names


class ImportDatasetHandler:
    """One stage: reading is bound by the disk, and nothing is visible before the end."""

    def plan(self, work: Work) -> Sequence[Shard]:
        """No shards. Raises UnknownDataset."""
        record_of(work, _spec(work).dataset_id)
        return []

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """There are none."""
        raise InternalError("an import has no shards")

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Checks, divides and keeps the images; the record changes in one transaction at the end.

        Raises UnknownDataset (also when it was deleted meanwhile), InvalidDataset, MissingFiles.
        """
        spec = _spec(work)
        record = record_of(work, spec.dataset_id)
        dataset = load_dataset(work.place(spec.source), format=spec.format, name=record.name)
        strangers = sorted({s.label for s in dataset.samples if s.label} - set(record.class_names))
        if record.class_names and strangers:
            raise InvalidDataset(
                f"labels {strangers[:5]} are not among the class names of {record.name!r}: "
                f"{list(record.class_names)[:20]}"
            )
        work.log(f"{len(dataset)} images at {spec.source}")
        report = inspect_dataset(dataset, progress=lambda d, t: work.progress("checking images", d, t))
        unreadable = [f"{p.id}: {p.message}" for p in report.problems]
        if len(unreadable) > MAX_UNREADABLE_SHARE * len(dataset):
            raise InvalidDataset(
                f"{len(unreadable)} of {len(dataset)} images cannot be used (at most "
                f"{MAX_UNREADABLE_SHARE:.0%} may be left out), first: {unreadable[:3]}"
            )
        for line in unreadable[:_NAMED]:
            work.log(f"left out: {line}", "warning")
        kept = np.flatnonzero(report.readable)
        dataset, clusters = dataset.subset(kept), report.clusters[kept]
        divided = spec.new_splits or not dataset.split_names
        if divided:
            dataset = assign_splits(dataset, SHARES, spec.seed, clusters=clusters)
        self._keep(work, dataset)
        manifest = work.artifacts.put_bytes(write_manifest(dataset))
        n_by_split = dict(Counter(s.split for s in dataset.samples if s.split is not None))
        class_names = record.class_names or dataset.class_names
        with work.store.write() as tx:
            tx.datasets.update(
                spec.dataset_id,
                state="ready",
                digest=dataset.digest,
                n_images=len(dataset),
                class_names=class_names,
                n_by_split=n_by_split,
                manifest_sha256=manifest,
            )
        return {
            "digest": dataset.digest,
            "n_images": len(dataset),
            "n_by_split": n_by_split,
            "splits": "new" if divided else "given",
            "n_left_out": len(unreadable),
            "left_out": unreadable[:_NAMED],
            "n_duplicate_clusters": len(report.duplicates),
        }

    def _keep(self, work: Work, dataset: Dataset) -> None:
        for done, (sample, sha256) in enumerate(zip(dataset.samples, dataset.bytes_sha256, strict=True)):
            work.progress("keeping images", done, len(dataset))
            if not work.artifacts.exists(sha256):
                found = work.artifacts.put_bytes(dataset.read_bytes(sample))
                if found != sha256:
                    raise InvalidDataset(f"image {sample.id!r} changed while it was imported: try again")


def _spec(work: Work) -> ImportDataset:
    spec = work.job.spec
    assert isinstance(spec, ImportDataset)
    return spec
