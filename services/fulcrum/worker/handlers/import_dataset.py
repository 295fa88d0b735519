"""`import_dataset`: images of a folder, a bucket or an uploaded archive become artifacts, and the record ready."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets import import_parts
from fulcrum.datasets.hygiene import HygieneReport, assign_splits, find_leakage
from fulcrum.datasets.hygiene.facts import ImageFacts
from fulcrum.datasets.hygiene.inspection import report_of
from fulcrum.datasets.import_parts import LookedAt, PartWriter, open_part
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.datasets.stored import ImportedColumns, stored_dataset, write_manifest
from fulcrum.domain.codec import to_json
from fulcrum.domain.datasets import ImportReport, LeakedImages, LeftOut
from fulcrum.domain.errors import InvalidDataset, QuotaExceeded, StaleVersion
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset, Shard, ShardResult, content_key
from fulcrum.domain.records import DatasetRecord, DatasetVersion
from fulcrum.store.transaction import Transaction
from fulcrum.worker.datasets import record_of
from fulcrum.worker.evaluations import as_json
from fulcrum.worker.import_source import Source, Sources
from fulcrum.worker.work import Work

SHARES = {"discover": 0.4, "select": 0.2, "confirm": 0.4}
MAX_UNREADABLE_SHARE = 0.05  # beyond that it is not the data set that somebody meant
IMAGES_PER_PART = 512
_NAMED = 20  # images that the result names
_LISTED = 200  # and the report


@dataclass(frozen=True)
class _Found:
    """What the parts found out, in the order of the source."""

    facts: list[ImageFacts]
    n_bytes: NDArray[np.int64]
    masks: list[str | None]
    mask_problems: list[str]


class ImportDatasetHandler:
    """Parts look at images and keep them; the end divides them. Nothing is visible before the end."""

    def __init__(self) -> None:
        self._sources = Sources()

    def plan(self, work: Work) -> Sequence[Shard]:
        """One shard for each 512 images. Raises UnknownDataset, InvalidDataset, MissingFiles, PayloadTooLarge,
        QuotaExceeded.
        """
        spec = _spec(work)
        record = record_of(work, spec.dataset_id)
        source = self._sources.open(work, spec, record.name)
        dataset = source.dataset
        _check_labels(dataset, record)
        if empty := source.empty_splits():
            raise InvalidDataset(f"the split {empty[0]!r} of {record.name!r} holds no image")
        if spec.quota_bytes is not None:
            stamps = dataset.hashes.byte_source.stamp
            _check_quota(work, spec, record, sum(stamps(s.source)[0] for s in dataset.samples))
        work.log(f"{len(dataset)} images ({source.format})")
        return [_part(source, first) for first in range(0, len(dataset), IMAGES_PER_PART)]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Keeps images and masks of one part. Raises as `plan`, also for a source that changed since."""
        spec = _spec(work)
        record = record_of(work, spec.dataset_id)  # one that was deleted needs no further images
        source = self._open(work, spec, record.name, shard)
        first, last = shard.content["first"], shard.content["last"]
        samples = source.dataset.samples[first:last]
        writer = PartWriter()
        for done, (looked, mask) in enumerate(_looked_at(work, source.dataset, samples)):
            work.progress("checking and keeping images", done, len(samples))
            writer.add(looked, mask)
        path = work.folder / f"part-{first}-{os.getpid()}"
        writer.write(path)
        content = path.read_bytes()
        path.unlink()
        return content

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Finds duplicates, divides, and changes the record in one transaction.

        Raises UnknownDataset (also when it was deleted meanwhile), InvalidDataset, StaleVersion, QuotaExceeded.
        """
        spec = _spec(work)
        record = record_of(work, spec.dataset_id)
        source = self._open(work, spec, record.name, results[0].shard)
        found = _collected(work, results)
        work.progress("looking for duplicates", 0, len(source.dataset))
        report = report_of(source.dataset, found.facts)
        kept = _usable(work, source.dataset, report)
        dataset, clusters = source.dataset.subset(kept), report.clusters[kept]
        splits: Literal["given", "new"] = "given"
        if spec.new_splits or not dataset.split_names:
            dataset, splits = assign_splits(dataset, SHARES, spec.seed, clusters=clusters), "new"
        warnings = _warnings(dataset, splits)
        for line in warnings:
            work.log(line, "warning")
        dataset = stored_dataset(
            dataset,
            [report.bytes_sha256[i] for i in kept],
            [found.masks[i] for i in kept],
            work.artifacts.read_bytes,
        )
        columns = _columns(report, kept, results)
        made = _report(work, source, dataset, report, found, splits, warnings)
        version = DatasetVersion(
            id=new_id("dsv"),
            project_id=record.project_id,
            dataset_id=record.id,
            digest=dataset.digest,
            manifest_sha256=work.artifacts.put_bytes(write_manifest(dataset, columns)),
            report_sha256=work.artifacts.put_bytes(as_json(to_json(made))),
            n_images=len(dataset),
            size_bytes=made.size_bytes,
            n_by_split=made.n_by_split,
            job_id=work.job.id,
            created_by=work.job.created_by,
            created_at=now(),
        )
        with work.store.write() as tx:
            _make_visible(tx, spec, version, record.class_names or dataset.class_names)
        return {
            "digest": version.digest,
            "n_images": version.n_images,
            "size_bytes": version.size_bytes,
            "n_by_split": version.n_by_split,
            "splits": splits,
            "n_left_out": made.n_left_out,
            "left_out": [f"{p.id}: {p.message}" for p in made.left_out[:_NAMED]],
            "n_duplicate_clusters": made.n_duplicate_clusters,
            "n_leaks": made.n_leaks,
            "warnings": list(warnings),
        }

    def _open(self, work: Work, spec: ImportDataset, name: str, shard: Shard) -> Source:
        source = self._sources.open(work, spec, name)
        if source.sha256 != shard.content["source"]:
            raise InvalidDataset(f"{spec.source} changed while it was imported: try again")
        return source


def _spec(work: Work) -> ImportDataset:
    spec = work.job.spec
    assert isinstance(spec, ImportDataset)
    return spec


def _part(source: Source, first: int) -> Shard:
    last = min(first + IMAGES_PER_PART, len(source.dataset))
    key = content_key(
        kind=import_parts.KIND, version=import_parts.VERSION, source=source.sha256, first=first, last=last
    )
    return Shard(key, {"source": source.sha256, "first": first, "last": last})


def _check_labels(dataset: Dataset, record: DatasetRecord) -> None:
    strangers = sorted({s.label for s in dataset.samples if s.label} - set(record.class_names))
    if record.class_names and strangers:
        raise InvalidDataset(
            f"labels {strangers[:5]} are not among the class names of {record.name!r}: "
            f"{list(record.class_names)[:20]}"
        )


def _check_quota(work: Work, spec: ImportDataset, record: DatasetRecord, size_bytes: int) -> None:
    with work.store.read() as tx:
        _room(tx, spec, record.project_id, size_bytes)


def _room(tx: Transaction, spec: ImportDataset, project_id: str, size_bytes: int) -> None:
    if spec.quota_bytes is None:
        return
    others = tx.datasets.size_bytes(project_id, without=spec.dataset_id)
    if others + size_bytes > spec.quota_bytes:
        raise QuotaExceeded(
            f"the images have {size_bytes} bytes and the other data sets of the project {others}: "
            f"together {spec.quota_bytes} are allowed"
        )


def _looked_at(
    work: Work, dataset: Dataset, samples: Sequence[Sample]
) -> Iterator[tuple[LookedAt, str | None]]:
    """Each image, kept, with the hash of its mask; a bounded number of them is in memory."""
    n_threads = min(8, os.cpu_count() or 1)
    look = partial(_look_and_keep, work, dataset)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[tuple[LookedAt, str | None]]] = deque()
        try:
            for sample in samples:
                waiting.append(pool.submit(look, sample))
                if len(waiting) >= 4 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _look_and_keep(work: Work, dataset: Dataset, sample: Sample) -> tuple[LookedAt, str | None]:
    looked = import_parts.look_at(dataset, sample)
    if looked.content is not None and not work.artifacts.exists(looked.facts.bytes_sha256):
        work.artifacts.put_bytes(looked.content)
    return looked, None if looked.mask is None else work.artifacts.put_bytes(looked.mask)


def _collected(work: Work, results: Sequence[ShardResult]) -> _Found:
    facts: list[ImageFacts] = []
    n_bytes: list[NDArray[np.int64]] = []
    masks: list[str | None] = []
    problems: list[str] = []
    for done, result in enumerate(results):
        work.progress("reading what was found", done, len(results), "parts")
        part = open_part(work.artifacts.local_path(result.sha256))
        facts += part.facts()
        n_bytes.append(part.n_bytes)
        masks += part.masks()
        problems += part.mask_problems()
    return _Found(facts, np.concatenate(n_bytes), masks, problems)


def _usable(work: Work, dataset: Dataset, report: HygieneReport) -> NDArray[np.int64]:
    """Numbers of the images that can be used. Raises InvalidDataset where too few can."""
    lines = [f"{p.id}: {p.message}" for p in report.problems]
    if len(lines) > MAX_UNREADABLE_SHARE * len(dataset):
        raise InvalidDataset(
            f"{len(lines)} of {len(dataset)} images cannot be used (at most "
            f"{MAX_UNREADABLE_SHARE:.0%} may be left out), first: {lines[:3]}"
        )
    for line in lines[:_NAMED]:
        work.log(f"left out: {line}", "warning")
    kept = np.flatnonzero(report.readable).astype(np.int64)
    lost = sorted(set(dataset.split_names) - set(dataset.splits[kept].tolist()))
    if lost:
        raise InvalidDataset(f"the split {lost[0]!r} is empty: none of its images can be used, see the log")
    return kept


def _warnings(dataset: Dataset, splits: str) -> tuple[str, ...]:
    found = []
    if splits == "new" and (missing := sorted(set(SHARES) - set(dataset.split_names))):
        found.append(f"{len(dataset)} images are too few to divide: {' and '.join(missing)} got none")
    elif splits == "given" and (strange := sorted(set(dataset.split_names) - set(SHARES))):
        found.append(
            f"the splits {strange} are kept, but only discover, select and confirm are judged on: "
            "import with new splits to divide the images so"
        )
    return tuple(found)


def _columns(
    report: HygieneReport, kept: NDArray[np.int64], results: Sequence[ShardResult]
) -> ImportedColumns:
    return ImportedColumns(
        widths=report.widths[kept],
        heights=report.heights[kept],
        pixels_sha256=tuple(report.pixels_sha256[i] for i in kept),
        phashes=report.phashes[kept],
        rows=kept,
        clusters=report.clusters[kept],
        parts=tuple(r.sha256 for r in results),
        images_per_part=IMAGES_PER_PART,
    )


def _report(
    work: Work,
    source: Source,
    dataset: Dataset,
    hygiene: HygieneReport,
    found: _Found,
    splits: Literal["given", "new"],
    warnings: tuple[str, ...],
) -> ImportReport:
    kept = np.flatnonzero(hygiene.readable)
    ids = source.dataset.ids
    duplicates = [
        tuple(str(ids[n]) for n in group if hygiene.readable[n])
        for group in hygiene.duplicates
        if hygiene.readable[group[0]]
    ]
    # Of the splits as they are now; equal bytes and pixels first, since each set is named by its strongest link.
    leakage = find_leakage(
        dataset,
        hygiene.clusters[kept],
        bytes_clusters=_equal([hygiene.bytes_sha256[i] for i in kept]),
        pixels_clusters=_equal([hygiene.pixels_sha256[i] for i in kept]),
    )
    return ImportReport(
        dataset_id=_spec(work).dataset_id,
        digest=dataset.digest,
        job_id=work.job.id,
        source=_spec(work).source,
        format=source.format,
        n_found=len(source.dataset),
        n_images=len(dataset),
        size_bytes=int(found.n_bytes.sum()),
        splits=splits,
        n_by_split=dict(Counter(s.split for s in dataset.samples if s.split is not None)),
        n_left_out=len(hygiene.problems),
        left_out=tuple(LeftOut(p.id, p.reason, p.message) for p in hygiene.problems[:_LISTED]),
        n_rotated=hygiene.n_rotated,
        n_converted=hygiene.n_converted,
        n_masks=sum(s.mask_path is not None for s in dataset.samples),
        mask_problems=tuple(found.mask_problems[:_LISTED]),
        n_duplicate_clusters=len(duplicates),
        duplicates=tuple(duplicates[:_LISTED]),
        n_leaks=len(leakage.leaks),
        n_leaking=leakage.n_images,
        leaks=tuple(LeakedImages(k.kind, k.ids) for k in leakage.leaks[:_LISTED]),
        warnings=warnings,
    )


def _equal(hashes: Sequence[str]) -> NDArray[np.int64]:
    first: dict[str, int] = {}
    return np.array([first.setdefault(h, i) for i, h in enumerate(hashes)], dtype=np.int64)


def _make_visible(
    tx: Transaction, spec: ImportDataset, version: DatasetVersion, class_names: tuple[str, ...]
) -> None:
    """All at once, and once only: a reduce that is run again finds what it did."""
    if tx.dataset_versions.of_job(version.job_id) is not None:
        return
    record = tx.datasets.get(spec.dataset_id)
    if spec.replaces is not None and (record.digest or "") not in (spec.replaces, version.digest):
        raise StaleVersion(
            f"other images were imported into {record.name!r} meanwhile: look at them, and import again"
        )
    _room(tx, spec, version.project_id, version.size_bytes)
    tx.dataset_versions.add(version)
    tx.datasets.update(
        spec.dataset_id,
        state="ready",
        digest=version.digest,
        n_images=version.n_images,
        class_names=class_names,
        n_by_split=version.n_by_split,
        manifest_sha256=version.manifest_sha256,
        report_sha256=version.report_sha256,
        size_bytes=version.size_bytes,
    )
