"""`describe_concepts`: one shard, since it reads the whole index and no image."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulcrum.datasets.description import ConceptDescription
from fulcrum.domain.errors import AlreadyExists, StaleVersion
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import DescribeConcepts, Shard, ShardResult, content_key
from fulcrum.domain.records import ConceptRecord, DescriptionRecord
from fulcrum.worker.indexes import OpenDataset, current_index, open_index
from fulcrum.worker.work import Work

_LABELS_AT_ONCE = 2_000  # in one transaction: other writers wait for it
_TRIES = 10


class DescribeConceptsHandler:
    """What every latent that fires stands for."""

    def __init__(self, open_dataset: OpenDataset) -> None:
        self._open_dataset = open_dataset

    def plan(self, work: Work) -> Sequence[Shard]:
        """Raises UnknownDataset, UnknownIndex."""
        from fulcrum.engine.describing import VERSION, built_in_vocabulary

        spec = _spec(work)
        index = current_index(work, spec.dataset_id, spec.sae_id)
        key = content_key(
            what="description",
            version=VERSION,
            index=index.key,
            vocabulary=list(spec.vocabulary or built_in_vocabulary()),
            n_top_images=spec.n_top_images,
            seed=spec.seed,
        )
        return [Shard(key, {"index_id": index.id})]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """The description's file. Raises EmptyPrompts, InvalidPrompt, InvalidInput for words that cannot be labels."""
        from fulcrum.engine.describing import describe_latents

        spec = _spec(work)
        with work.store.read() as tx:
            record = tx.indexes.get(shard.content["index_id"])
        index = open_index(work, record)
        steerable = work.engine.residency.steerable(*work.sae(spec.sae_id))
        with tempfile.TemporaryDirectory(dir=work.folder) as folder:
            path = Path(folder) / "description.arrays"
            describe_latents(
                steerable,
                self._open_dataset(work, spec.dataset_id),
                index,
                path,
                spec.vocabulary,
                spec.n_top_images,
                spec.seed,
                lambda what, done, total: work.progress(
                    what, done, total, "images" if what == "top images" else "latents"
                ),
            )
            return path.read_bytes()

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Labels beside those of people, which stay, and the record of the description."""
        spec, (result,) = _spec(work), results
        described = ConceptDescription.open(work.artifacts.local_path(result.sha256))
        n_written = self._keep_labels(work, described)
        record = DescriptionRecord(
            id=new_id("dsc"),
            project_id=work.job.project_id,
            sae_id=spec.sae_id,
            dataset_id=spec.dataset_id,
            index_id=result.shard.content["index_id"],
            key=result.shard.key,
            sha256=result.sha256,
            n_described=len(described),
            n_labels=len(described.vocabulary),
            size_bytes=work.artifacts.size(result.sha256),
            created_by=work.job.created_by,
            created_at=now(),
        )
        with work.store.write() as tx:
            before = tx.descriptions.by_key(record.index_id, record.key)
            record = before or tx.descriptions.add(record)
        return {
            "description_id": record.id,
            "index_id": record.index_id,
            "n_described": record.n_described,
            "n_dead": described.found_in.d_sae - record.n_described,
            "n_labelled": int(described.has_embedding.sum()),
            "n_labels_written": n_written,
        }

    def _keep_labels(self, work: Work, described: ConceptDescription) -> int:
        spec = _spec(work)
        rows = [row for row in range(len(described)) if described.label(row) is not None]
        n_written = 0
        for start in range(0, len(rows), _LABELS_AT_ONCE):
            work.progress("labels", start, len(rows), "latents")
            records = [
                ConceptRecord(
                    id=new_id("con"),
                    project_id=work.job.project_id,
                    sae_id=spec.sae_id,
                    latent=int(described["latents"][row]),
                    created_by=work.job.created_by,
                    created_at=now(),
                    label=described.label(row) or "",
                    label_source="auto",
                    label_score=float(described["label_scores"][row, 0]),
                )
                for row in rows[start : start + _LABELS_AT_ONCE]
            ]
            n_written += _put(work, records)
        return n_written


def _put(work: Work, records: Sequence[ConceptRecord]) -> int:
    for left in range(_TRIES - 1, -1, -1):
        try:
            with work.store.write() as tx:
                return tx.concepts.put_auto(records)
        except (AlreadyExists, StaleVersion):  # a person labelled one of them at this moment
            if left == 0:
                raise
    raise AssertionError("unreachable")


def _spec(work: Work) -> DescribeConcepts:
    spec = work.job.spec
    assert isinstance(spec, DescribeConcepts)
    return spec
