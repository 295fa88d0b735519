"""`find_experts`: a shard is the responses to some examples; the reduce ranks the units and compares the concepts."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulcrum.domain.concept_files import read_judgements_bytes
from fulcrum.domain.concept_sets import ConceptSet, read_concept_set
from fulcrum.domain.errors import Conflict, CorruptArtifact, InvalidInput, SaeDoesNotFit
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import FindExperts, Shard, ShardResult
from fulcrum.domain.records import ExpertsRecord
from fulcrum.worker.datasets import record_of
from fulcrum.worker.indexes import OpenDataset, current_index, open_index
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.datasets.expert_table import AboutExperts
    from fulcrum.engine.expert_search import Search


class FindExpertsHandler:
    """Experts of concepts among latents, among units of a tower, or among those of a language model."""

    def __init__(self, open_dataset: OpenDataset) -> None:
        self._open_dataset = open_dataset

    def plan(self, work: Work) -> Sequence[Shard]:
        """Parts of the responses, of the model and of random weights.

        Raises UnknownModel, UnknownSae, UnknownDataset, UnknownIndex, MissingDependency, and InvalidInput or
        InvalidDataset for concepts that the examples do not have, or a sentence that is too long.
        """
        from fulcrum.engine.expert_search import check_sentences

        search = self._opened(work)
        check_sentences(work.engine.residency, search)
        examples = search.examples
        work.log(
            f"{len(examples.names)} concepts, {len(examples.numbers)} examples, {search.n_units} units; random weights "
            "and baselines beside them"
        )
        if examples.left_out:
            work.log(f"too few images, left out: {', '.join(examples.left_out[:20])}", "warning")
        if not examples.one_base_rate:
            work.log(
                "the concepts have different base rates: they are compared by their best k units and by AUROC, not by "
                "thresholds on AP (n_pos and n_neg would make them equal)"
            )
        if search.model.dtype != "float32":
            work.log(
                f"responses in {search.model.dtype} move AP and flip experts; float32 is exact",
                "warning",
            )
        return [Shard(key, {"variant": v, "piece": piece}) for key, v, piece in search.shards()]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """The responses' file. Raises UnreadableImage, InvalidPrompt, and Conflict where the question has changed."""
        search = self._opened(work)
        variant, piece = str(shard.content["variant"]), int(shard.content["piece"])
        part, pieces = search.parts.get(variant), search.pieces
        if part is None or piece >= len(pieces) or part.key(pieces[piece]) != shard.key:
            raise Conflict(
                "the examples, the model or this worker's precision "
                f"({search.model.device_type}, {search.model.dtype}) is no more what the search was planned "
                "for: start again"
            )
        numbers = pieces[piece]
        what = "responses" if variant == "experts" else "responses of random weights"
        unit = "sentences" if work_spec(work).units in ("text", "language") else "images"
        with tempfile.TemporaryDirectory(dir=work.folder) as folder:
            path = Path(folder) / "responses.arrays"
            part.write(path, numbers, lambda done: work.progress(what, done, len(numbers), unit))
            return path.read_bytes()

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """Ranks every unit for every concept, compares the concepts, and keeps the record."""
        from fulcrum.engine.expert_search import rank
        from fulcrum.engine.expert_structure import write_experts

        search, spec = self._opened(work), work_spec(work)
        residency = work.engine.residency
        files: dict[str, list[Path]] = {"experts": [], "random_weights": []}
        for result in results:
            files[str(result.shard.content["variant"])].append(work.artifacts.local_path(result.sha256))
        ranked = {v: rank(search, v, paths, work.folder, work.progress) for v, paths in files.items()}
        with tempfile.TemporaryDirectory(dir=work.folder) as folder:
            path = Path(folder) / "experts.arrays"
            judgements = [read_judgements_bytes(work.artifacts.read_bytes(r.sha256)) for r in spec.ratings]
            about = write_experts(search, ranked, path, work.progress, judgements)
            sha256 = work.artifacts.put_bytes(path.read_bytes())
        residency.drop_language_models()
        numbers = summary_of(about)
        record = ExpertsRecord(
            id=new_id("exp"),
            project_id=work.job.project_id,
            name=spec.name or f"{spec.units}: {', '.join(search.examples.names)}"[:200],
            units=spec.units,
            model_id=spec.model_id,
            model_sha256=search.model.weights_sha256,
            key=search.key,
            sha256=sha256,
            job_id=work.job.id,
            n_concepts=len(about.concepts),
            n_units=search.n_units,
            n_examples=len(search.examples.numbers),
            size_bytes=work.artifacts.size(sha256),
            created_by=work.job.created_by,
            created_at=now(),
            sae_id=spec.sae_id,
            sae_sha256=None if search.index is None else search.index.key.sae_sha256,
            dataset_id=spec.dataset_id,
            dataset_digest=None if spec.dataset_id is None else record_of(work, spec.dataset_id).digest,
            concept_set_sha256=spec.concept_set_sha256,
            language_model=spec.language_model,
            numbers=numbers,
        )
        with work.store.write() as tx:
            known = tx.experts.by_key(record.project_id, record.key, record.name)
            record = known or tx.experts.add(record)
        return {
            "experts_id": record.id,
            "n_units": record.n_units,
            "n_examples": record.n_examples,
            **numbers,
        }

    def _opened(self, work: Work) -> "Search":
        from fulcrum.engine.expert_search import (
            open_language_search,
            open_latent_search,
            open_tower_search,
        )

        spec = work_spec(work)
        residency = work.engine.residency
        if spec.units == "latents":
            if spec.sae_id is None or spec.dataset_id is None:
                raise InvalidInput("experts among latents need an SAE and a data set")
            model, source = work.sae(spec.sae_id)
            dataset = self._open_dataset(work, spec.dataset_id)
            index = open_index(work, current_index(work, spec.dataset_id, spec.sae_id))
            steerable = residency.steerable(model, source)
            if index.key.sae_sha256 != steerable.sae_info.weights_sha256:
                raise SaeDoesNotFit(
                    "the SAE has other weights than those that the data set was indexed under"
                )
            return open_latent_search(residency, model, source, spec, dataset, index)
        if spec.units == "language":
            if spec.language_model is None:
                raise InvalidInput("experts among units of a language model need its reference")
            concepts = _concept_set(work, spec)
            return open_language_search(residency, work.language_model(spec.language_model), spec, concepts)
        if spec.model_id is None:
            raise InvalidInput(f"experts among {spec.units} need a model")
        model = work.model(spec.model_id)
        if spec.units == "vision":
            if spec.dataset_id is None:
                raise InvalidInput("experts among units of the vision tower need a data set")
            dataset = self._open_dataset(work, spec.dataset_id)
            return open_tower_search(residency, model, spec, dataset=dataset)
        return open_tower_search(residency, model, spec, concepts=_concept_set(work, spec))


def summary_of(about: "AboutExperts") -> dict[str, Any]:
    """A few numbers by the rule that is shown first."""
    numbers: dict[str, Any] = {
        "mean_best_ap": sum(c.best_ap for c in about.concepts) / len(about.concepts),
        "control_mean_best_ap": sum(c.control_best_ap for c in about.concepts) / len(about.concepts),
    }
    for summary in about.summaries:
        if summary.agreement is not None and summary.rule in (about.shown_rule, None):
            numbers[f"ari_{summary.of}"] = summary.agreement.ari
    return numbers


def work_spec(work: Work) -> FindExperts:
    """What was asked."""
    spec = work.job.spec
    assert isinstance(spec, FindExperts)
    return spec


def _concept_set(work: Work, spec: FindExperts) -> ConceptSet:
    if spec.concept_set_sha256 is None:
        raise InvalidInput("experts among units that answer sentences need a concept set")
    try:
        return read_concept_set(work.artifacts.read_bytes(spec.concept_set_sha256))
    except InvalidInput as error:
        raise CorruptArtifact(f"the stored concept set cannot be read: {error}") from error
