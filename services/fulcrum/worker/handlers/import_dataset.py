"""`import_dataset`: images of a folder, a bucket or an uploaded archive become artifacts, and the record ready."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets import import_parts
from fulcrum.datasets.hygiene import HygieneReport, assign_splits
from fulcrum.datasets.hygiene.facts import ImageFacts
from fulcrum.datasets.hygiene.inspection import report_of
from fulcrum.datasets.import_parts import LookedAt, PartWriter, open_part
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.datasets.stored import stored_dataset, write_manifest
from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import Conflict, InvalidDataset, QuotaExceeded, StaleVersion
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset, Shard, ShardResult, content_key
from fulcrum.domain.records import DatasetRecord, DatasetVersion
from fulcrum.store.transaction import Transaction
from fulcrum.worker.datasets import record_of
from fulcrum.worker.evaluations import as_json
from fulcrum.worker.import_report import SHARES, Found, columns_of, import_report, warnings_of
from fulcrum.worker.import_source import Source, Sources
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.image_embedding import ImageEmbedder

MAX_UNREADABLE_SHARE = 0.05  # beyond that it is not the data set that somebody meant
IMAGES_PER_PART = 512
_NAMED = 20  # images that the result names
_NOTED_AT_ONCE, _NOTED_BYTES = 64, 64 << 20  # images between two short transactions
_EMBEDDED_AT_ONCE = 32  # what a model takes; more would only wait in memory


class ImportDatasetHandler:
    """Parts look at images and keep them; the end divides them. Nothing is visible before the end."""

    def __init__(self) -> None:
        self._sources = Sources()

    def plan(self, work: Work) -> Sequence[Shard]:
        """One shard for each 512 images. Raises UnknownDataset, UnknownModel, InvalidDataset, MissingFiles,
        PayloadTooLarge, QuotaExceeded.
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
        embedding = _embedding(work, spec)
        work.log(f"{len(dataset)} images ({source.format})")
        return [_part(source, first, embedding) for first in range(0, len(dataset), IMAGES_PER_PART)]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """Keeps images and masks of one part. Raises as `plan`, also for a source that changed since, and Conflict
        where the images would be embedded otherwise than it was planned.
        """
        spec = _spec(work)
        record = record_of(work, spec.dataset_id)  # one that was deleted needs no further images
        source = self._open(work, spec, record.name, shard)
        first, last = shard.content["first"], shard.content["last"]
        samples = source.dataset.samples[first:last]
        embedding = _embedding(work, spec)
        if _part(source, first, embedding).key != shard.key:
            raise Conflict(
                "the model that was named is no more what the import was planned with, or this worker computes "
                "otherwise than the one that planned it: start again"
            )
        embedder = None if embedding is None else embedding.embedder
        writer, embedded = PartWriter(), _Embedded(embedder)
        for done, (looked, mask) in enumerate(_looked_at(work, source.dataset, samples, embedder)):
            work.progress("checking and keeping images", done, len(samples))
            writer.add(looked, mask)
            embedded.add(looked.prepared)
        path = work.folder / f"part-{first}-{os.getpid()}"
        writer.write(path, embedded.all())
        content = path.read_bytes()
        path.unlink()
        with work.store.write() as tx:  # an import that failed may have left the same bytes
            tx.import_contents.note(work.job.id, [sha256(content).hexdigest()])
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
        report = report_of(
            source.dataset,
            found.facts,
            embeddings=found.embeddings,
            progress=lambda done, total: work.progress("comparing embeddings", done, total),
        )
        kept = _usable(work, source.dataset, report)
        dataset, clusters = source.dataset.subset(kept), report.clusters[kept]
        splits: Literal["given", "new"] = "given"
        if spec.new_splits or not dataset.split_names:
            dataset, splits = assign_splits(dataset, SHARES, spec.seed, clusters=clusters), "new"
        warnings = warnings_of(dataset, splits, report, found)
        for line in warnings:
            work.log(line, "warning")
        dataset = stored_dataset(
            dataset,
            [report.bytes_sha256[i] for i in kept],
            [found.masks[i] for i in kept],
            work.artifacts.read_bytes,
        )
        columns = columns_of(report, kept, results, IMAGES_PER_PART)
        made = import_report(work.job, source, dataset, report, found, splits, warnings)
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
        result = {
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
        return result if made.embeddings is None else result | {"n_links": made.embeddings.n_links}

    def _open(self, work: Work, spec: ImportDataset, name: str, shard: Shard) -> Source:
        source = self._sources.open(work, spec, name)
        if source.sha256 != shard.content["source"]:
            raise InvalidDataset(f"{spec.source} changed while it was imported: try again")
        return source


def _spec(work: Work) -> ImportDataset:
    spec = work.job.spec
    assert isinstance(spec, ImportDataset)
    return spec


@dataclass(frozen=True)
class _Embedding:
    """The model that images are embedded with; `name` is what people call it."""

    name: str
    embedder: "ImageEmbedder"


def _embedding(work: Work, spec: ImportDataset) -> _Embedding | None:
    """None where no model was named. Raises UnknownModel, CorruptCheckpoint, OutOfMemory."""
    if spec.model_id is None:
        return None
    ref = work.model(spec.model_id)
    with work.store.read() as tx:
        name = tx.models.get(spec.model_id).name
    from fulcrum.engine.image_embedding import ImageEmbedder

    return _Embedding(name, ImageEmbedder(work.engine.residency.model(ref)))


def _part(source: Source, first: int, embedding: _Embedding | None) -> Shard:
    last = min(first + IMAGES_PER_PART, len(source.dataset))
    content: dict[str, Any] = {"source": source.sha256, "first": first, "last": last}
    if embedding is None:
        return Shard(content_key(kind=import_parts.KIND, version=import_parts.VERSION, **content), content)
    by = embedding.embedder.identity
    key = content_key(kind=import_parts.KIND, version=import_parts.VERSION, **content, embedded_by=by)
    return Shard(key, content | {"model": {"name": embedding.name, "sha256": by["model_sha256"]}})


class _Embedded:
    """Embeddings of images as they come, some at once; without a model nothing."""

    def __init__(self, embedder: "ImageEmbedder | None") -> None:
        self._embedder = embedder
        self._waiting: list[NDArray[np.float32] | None] = []
        self._done: list[NDArray[np.float32]] = []

    def add(self, prepared: NDArray[np.float32] | None) -> None:
        """The next image, None for one that has no embedding."""
        if self._embedder is not None:
            self._waiting.append(prepared)
            if len(self._waiting) == _EMBEDDED_AT_ONCE:
                self._embed(self._embedder)

    def all(self) -> NDArray[np.float32] | None:
        """(n, d_embed) of all that came."""
        if self._embedder is None:
            return None
        if self._waiting:
            self._embed(self._embedder)
        return np.concatenate(self._done)

    def _embed(self, embedder: "ImageEmbedder") -> None:
        self._done.append(embedder.embed(self._waiting))
        self._waiting.clear()


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
    work: Work, dataset: Dataset, samples: Sequence[Sample], embedder: "ImageEmbedder | None"
) -> Iterator[tuple[LookedAt, str | None]]:
    """Each image, kept, with the hash of its mask; a bounded number of them is in memory."""
    n_threads = min(8, os.cpu_count() or 1)
    prepare = None if embedder is None else embedder.prepare
    look = partial(import_parts.look_at, dataset, prepare=prepare)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[LookedAt]] = deque()
        looked: list[LookedAt] = []
        try:
            for sample in samples:
                waiting.append(pool.submit(look, sample))
                if len(waiting) >= 4 * n_threads:
                    looked.append(waiting.popleft().result())
                if len(looked) >= _NOTED_AT_ONCE or sum(len(k.content or b"") for k in looked) > _NOTED_BYTES:
                    yield from _kept(work, pool, looked)
                    looked = []
            while waiting:
                looked.append(waiting.popleft().result())
            yield from _kept(work, pool, looked)
        finally:
            for future in waiting:
                future.cancel()


def _kept(
    work: Work, pool: ThreadPoolExecutor, looked: Sequence[LookedAt]
) -> Iterator[tuple[LookedAt, str | None]]:
    """Keeps what can be used. Noted first: otherwise what an import leaves that fails would stay for ever."""
    masks = [None if k.mask is None else sha256(k.mask).hexdigest() for k in looked]
    images = [k.facts.bytes_sha256 for k in looked if k.content is not None]
    with work.store.write() as tx:
        tx.import_contents.note(work.job.id, [*images, *(m for m in masks if m is not None)])

    def keep(one: LookedAt) -> LookedAt:
        if one.content is not None and not work.artifacts.exists(one.facts.bytes_sha256):
            work.artifacts.put_bytes(one.content)
        if one.mask is not None:
            work.artifacts.put_bytes(one.mask)
        return one

    yield from zip(pool.map(keep, looked), masks, strict=True)


def _collected(work: Work, results: Sequence[ShardResult]) -> Found:
    facts: list[ImageFacts] = []
    n_bytes: list[NDArray[np.int64]] = []
    masks: list[str | None] = []
    problems: list[str] = []
    embeddings: NDArray[np.float32] | None = None
    for done, result in enumerate(results):
        work.progress("reading what was found", done, len(results), "parts")
        part = open_part(work.artifacts.local_path(result.sha256))
        facts += part.facts()
        # Copies: each mapped part would hold a file open.
        n_bytes.append(np.array(part.n_bytes))
        masks += part.masks()
        problems += part.mask_problems()
        if (rows := part.embeddings) is not None:
            content = result.shard.content
            if embeddings is None:
                n = results[-1].shard.content["last"]
                embeddings = np.empty((n, rows.shape[1]), dtype=np.float32)
            embeddings[content["first"] : content["last"]] = rows
    return Found(
        facts, np.concatenate(n_bytes), masks, problems, embeddings, results[0].shard.content.get("model")
    )


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
    tx.import_contents.release_job(version.job_id)
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
