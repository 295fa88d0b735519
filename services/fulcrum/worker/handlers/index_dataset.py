"""`index_dataset`: one shard of the job is one shard of the index, kept under a name made of its images."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fulcrum.datasets.index import IndexKey, IndexLayout, LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.opening import link_files
from fulcrum.datasets.index.reader import INDEX_FILE, shard_name
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import Conflict
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import IndexDataset, Shard, ShardResult, content_key
from fulcrum.domain.records import IndexRecord
from fulcrum.worker.indexes import OpenDataset
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.residency import Steerable

_STATISTICS = "statistics.arrays"


@dataclass(frozen=True)
class _Job:
    """What every stage starts from."""

    steerable: "Steerable"
    dataset: Dataset
    key: IndexKey
    layout: IndexLayout
    shard_keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """Key of the whole index, with what is kept in it."""
        return content_key(index=self.key.sha256, shards=list(self.shard_keys))


class IndexDatasetHandler:
    """Embeddings and sparse latents of a data set, both ways round."""

    def __init__(self, open_dataset: OpenDataset) -> None:
        self._open_dataset = open_dataset

    def plan(self, work: Work) -> Sequence[Shard]:
        """A shard for each file of the index. Raises UnknownDataset, UnknownSae, SaeDoesNotFit, OutOfMemory."""
        job = self._opened(work)
        work.log(f"{len(job.dataset)} images in {job.layout.n_shards} shards at {job.key.hook_point}")
        return [Shard(key, {"shard": n}) for n, key in enumerate(job.shard_keys)]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """The file. Raises UnreadableImage, MissingFiles, and Conflict where this machine computes other bits."""
        from fulcrum.engine.indexing import index_shard

        job, number = self._opened(work), int(shard.content["shard"])
        if number >= len(job.shard_keys) or job.shard_keys[number] != shard.key:
            raise Conflict(
                f"the data set, the model or the SAE is no more what the job was planned for, or this worker "
                f"({job.key.device_type}, {job.key.dtype}) computes otherwise than the one that planned it: start again"
            )
        images = job.layout.shard_range(number)
        with tempfile.TemporaryDirectory(dir=work.folder) as folder:
            path = index_shard(
                job.steerable,
                job.dataset,
                job.layout,
                number,
                Path(folder),
                lambda done: work.progress("encoding images", done, len(images)),
            )
            return path.read_bytes()

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Statistics over the shards, and the record of the index."""
        job, spec = self._opened(work), work.job.spec
        assert isinstance(spec, IndexDataset)
        with tempfile.TemporaryDirectory(dir=work.folder) as name:
            folder = Path(name)
            files = {shard_name(int(r.shard.content["shard"])): r.sha256 for r in results}
            work.progress("statistics", 0, job.layout.n_images)
            link_files(files, work.artifacts.local_path, folder)
            index = LatentIndexWriter(folder, job.key, job.layout, shard_keys=job.shard_keys).finish()
            for made in (_STATISTICS, INDEX_FILE):
                files[made] = work.artifacts.put_bytes((folder / made).read_bytes())
            summary = _summary(index)
        record = IndexRecord(
            id=new_id("idx"),
            project_id=work.job.project_id,
            dataset_id=spec.dataset_id,
            sae_id=spec.sae_id,
            key=job.name,
            dataset_digest=job.key.dataset_digest,
            model_sha256=job.key.model_sha256,
            sae_sha256=job.key.sae_sha256,
            n_images=job.layout.n_images,
            n_activations=job.layout.n_kept,
            size_bytes=index.size_bytes,
            files=files,
            created_by=work.job.created_by,
            created_at=now(),
        )
        with work.store.write() as tx:
            record = tx.indexes.by_key(spec.dataset_id, spec.sae_id, job.name) or tx.indexes.add(record)
        return {"index_id": record.id, "n_images": record.n_images, "size_bytes": record.size_bytes} | summary

    def _opened(self, work: Work) -> _Job:
        from fulcrum.engine.indexing import index_key, index_layout, shard_size

        spec = work.job.spec
        assert isinstance(spec, IndexDataset)
        dataset = self._open_dataset(work, spec.dataset_id)
        steerable = work.engine.residency.steerable(*work.sae(spec.sae_id))
        layout = index_layout(steerable, dataset, shard_size(len(dataset)), spec.keep_activations_bytes)
        key = index_key(steerable, dataset)
        return _Job(steerable, dataset, key, layout, key.shard_keys(layout, dataset.bytes_sha256))


def _summary(index: LatentIndex) -> dict[str, Any]:
    statistics = index.statistics
    return {
        "n_activations": index.layout.n_kept,
        "bytes_per_image": index.bytes_per_image,
        "l0": float(statistics.n_tokens_active.sum() / statistics.n_tokens),
        "dead_share": float(np.mean(statistics.n_images_active == 0)),
    }
