"""Asks for experts of concepts, as jobs."""

import dataclasses
from typing import Any

from fulcrum.datasets.expert_table import VERSION, ExpertTable
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.concept_files import HumanJudgements, among_concepts, judgements_bytes
from fulcrum.domain.concept_sets import ConceptSet, concept_set_bytes
from fulcrum.domain.errors import (
    Conflict,
    InvalidRequest,
    SaeDoesNotFit,
    UnknownDataset,
    UnknownExperts,
    UnknownModel,
    UnknownSae,
)
from fulcrum.domain.jobs import FindExperts, JobRecord, RatingsFile, content_key
from fulcrum.domain.records import DatasetRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.evaluations.asking import add_after_index, check_ready
from fulcrum.gateway.experts.schemas import AlignmentQuestion, LatentExpertsQuestion, TowerExpertsQuestion
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.reach import reach
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.transaction import Transaction


def among_latents(jobs: Submitter, asker: Asker, sae_id: str, body: LatentExpertsQuestion) -> JobRecord:
    """The job, after the index where that is missing; the same question again is the same job.

    Raises UnknownSae, UnknownDataset, SaeDoesNotFit, InvalidDataset, InvalidRequest for no concept, RateLimited.
    """
    _check_asked(body)
    with jobs.store.write() as tx:
        dataset = _dataset(tx, asker, body.dataset_id)
        sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
        if sae.project_id != dataset.project_id:
            raise SaeDoesNotFit(
                f"SAE {sae.name!r} and data set {dataset.name!r} belong to different projects"
            )
        spec = from_json(
            FindExperts,
            {"kind": "find_experts", "units": "latents", "model_id": sae.model_id, "sae_id": sae.id}
            | body.model_dump(),
        )
        key = _key(spec, dataset.digest)
        made = add_after_index(jobs, tx, asker, dataset, sae.id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def among_units(
    jobs: Submitter, artifacts: Artifacts, asker: Asker, model_id: str, body: TowerExpertsQuestion
) -> JobRecord:
    """As `among_latents`, for a tower. Raises UnknownModel, and InvalidInput for what is no concept set."""
    if (body.dataset_id is None) == (body.concept_set is None):
        raise InvalidRequest(
            "give either dataset_id, for units of the vision tower, or concept_set, for those of the text tower"
        )
    asked: dict[str, Any] = body.model_dump(exclude={"concept_set"})
    if body.concept_set is not None:
        _refuse_conditions(body)
        concepts = from_json(ConceptSet, body.concept_set.model_dump())
        asked |= {"units": "text", "concept_set_sha256": artifacts.put_bytes(concept_set_bytes(concepts))}
        asked["name"] = asked["name"] or concepts.name
    else:
        _check_asked(body)
        asked["units"] = "vision"
    with jobs.store.write() as tx:
        model = reach(asker, tx, tx.models, model_id, "analyst", UnknownModel, "model")
        digest = None
        if body.dataset_id is not None:
            dataset = _dataset(tx, asker, body.dataset_id)
            if dataset.project_id != model.project_id:
                raise InvalidRequest(
                    f"model {model.name!r} and data set {dataset.name!r} belong to different projects"
                )
            digest = dataset.digest
        spec = from_json(FindExperts, {"kind": "find_experts", "model_id": model.id} | asked)
        job = jobs.add(tx, asker, model.project_id, spec, key=_key(spec, digest))
    jobs.wake(job)
    return job


def align(
    jobs: Submitter,
    artifacts: Artifacts,
    asker: Asker,
    experts_id: str,
    table: ExpertTable,
    body: AlignmentQuestion,
) -> JobRecord:
    """The search again with what people say beside it: no forward pass, since its parts are kept.

    Raises UnknownExperts, InvalidInput for words that are no concept or ratings without an order, Conflict when the
    data set is no more what it was, RateLimited.
    """
    names = [c.name for c in table.about.concepts]
    files = []
    for shown in body.judgements:
        judgements = from_json(_Judged, {"judgements": shown.model_dump()}).judgements
        kept = among_concepts(judgements, names, body.unknown_words)
        files.append(RatingsFile(kept.name, artifacts.put_bytes(judgements_bytes(kept))))
    with jobs.store.write() as tx:
        record = reach(asker, tx, tx.experts, experts_id, "analyst", UnknownExperts, "search for experts")
        spec = tx.jobs.get(record.job_id).spec
        assert isinstance(spec, FindExperts)
        digest = None
        if record.dataset_id is not None:
            digest = tx.datasets.get(record.dataset_id).digest
            if digest != record.dataset_digest:
                raise Conflict(
                    "the data set of this search has changed since: search again, with the judgements"
                )
        spec = dataclasses.replace(spec, ratings=tuple(files), name=record.name)
        job = jobs.add(tx, asker, record.project_id, spec, key=_key(spec, digest))
    jobs.wake(job)
    return job


@dataclasses.dataclass(frozen=True)
class _Judged:
    judgements: HumanJudgements


def _key(spec: FindExperts, digest: str | None) -> str:
    # With the version: whoever asks again for what an older search did not know must not get that search.
    return content_key(asked=to_json(spec), digest=digest, version=VERSION)


def _dataset(tx: Transaction, asker: Asker, dataset_id: str) -> DatasetRecord:
    dataset = reach(asker, tx, tx.datasets, dataset_id, "analyst", UnknownDataset, "data set")
    check_ready(dataset)
    return dataset


def _check_asked(body: LatentExpertsQuestion | TowerExpertsQuestion) -> None:
    if not body.columns and not body.concepts:
        raise InvalidRequest(
            "there is no concept: name columns (such as label) whose values are concepts, or concepts by conditions"
        )


def _refuse_conditions(body: TowerExpertsQuestion) -> None:
    given = [
        name for name in ("columns", "concepts", "among", "split", "n_pos", "n_neg") if getattr(body, name)
    ]
    if given:
        raise InvalidRequest(f"{', '.join(given)} choose images: with a concept_set there are none")
