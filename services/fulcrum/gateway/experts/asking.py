"""Asks for experts of concepts, as jobs."""

import asyncio
import dataclasses
import heapq
from contextlib import suppress
from typing import Any, Final

from fulcrum.datasets.expert_table import VERSION, ExpertTable
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.concept_files import HumanJudgements, among_concepts, judgements_bytes
from fulcrum.domain.concept_sets import ConceptSet, concept_set_bytes
from fulcrum.domain.errors import (
    Conflict,
    InvalidRequest,
    SaeDoesNotFit,
    Unavailable,
    UnknownDataset,
    UnknownExperts,
    UnknownModel,
    UnknownSae,
)
from fulcrum.domain.jobs import FindExperts, JobRecord, RatingsFile, content_key
from fulcrum.domain.language_models import check_language_model
from fulcrum.domain.records import DatasetRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.evaluations.asking import add_after_index, check_ready
from fulcrum.gateway.experts.schemas import (
    AlignmentQuestion,
    LanguageExpertsQuestion,
    LatentExpertsQuestion,
    TowerExpertsQuestion,
)
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.models import service as models
from fulcrum.gateway.reach import reach
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

_LOOKED_AT: Final = 32  # sentences that are shown to the tower before the job
_LOOK_S: Final = 10.0  # a model that has to be loaded first takes longer: the job waits for it, nobody else


def among_latents(jobs: Submitter, asker: Asker, sae_id: str, body: LatentExpertsQuestion) -> JobRecord:
    """The job, after the index where that is missing; the same question again is the same job.

    Raises UnknownSae, UnknownDataset, SaeDoesNotFit, InvalidDataset, InvalidRequest for no concept, RateLimited.
    """
    _check_asked(body)
    with jobs.store.write() as tx:
        dataset = _dataset(tx, asker, body.dataset_id)
        sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
        sae.require_latents("search for experts among the units of the model's vision tower")
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


def concepts_of(body: TowerExpertsQuestion) -> ConceptSet | None:
    """Those of sentences; None for images. Raises InvalidInput for what is no concept set, InvalidRequest."""
    if (body.dataset_id is None) == (body.concept_set is None):
        raise InvalidRequest(
            "give either dataset_id, for units of the vision tower, or concept_set, for those of the text tower"
        )
    if body.concept_set is None:
        _check_asked(body)
        return None
    _refuse_conditions(body)
    return from_json(ConceptSet, body.concept_set.model_dump())


async def check_lengths(
    store: Store, engine: AsyncRemoteEngine, asker: Asker, model_id: str, concepts: ConceptSet
) -> None:
    """Raises UnknownModel, and InvalidPrompt for a sentence that the text tower cannot read.

    Only the longest by bytes are shown to the tower, and only where they might have too many tokens; the job looks at
    all of them before it runs any.
    """
    model = await run_in_thread(models.get, store, asker, model_id, "analyst")
    if model.info is None:
        return
    used = {n for c in concepts.concepts for n in (*c.positives, *c.negatives)}
    longest = heapq.nlargest(
        _LOOKED_AT, (concepts.sentences[n] for n in used), key=lambda s: len(s.encode("utf-8", "replace"))
    )
    # No tokenizer makes more tokens than bytes, besides those for begin, end and class.
    short = model.info.text_context_length - 3
    doubtful = [s for s in longest if len(s.encode("utf-8", "replace")) > short]
    if doubtful:
        with suppress(Unavailable, TimeoutError):  # then the job says it
            async with asyncio.timeout(_LOOK_S):
                await engine.encode_texts(model.ref, doubtful, user=asker.user.id)


def among_units(
    jobs: Submitter,
    artifacts: Artifacts,
    asker: Asker,
    model_id: str,
    body: TowerExpertsQuestion,
    concepts: ConceptSet | None,
) -> JobRecord:
    """As `among_latents`, for a tower; `concepts` are those of the body. Raises UnknownModel."""
    asked: dict[str, Any] = body.model_dump(exclude={"concept_set"})
    if concepts is not None:
        asked |= {"units": "text", "concept_set_sha256": artifacts.put_bytes(concept_set_bytes(concepts))}
        asked["name"] = asked["name"] or concepts.name
    else:
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


def among_layers(
    jobs: Submitter, artifacts: Artifacts, asker: Asker, body: LanguageExpertsQuestion
) -> JobRecord:
    """As `among_latents`, for a language model. Raises UnknownModel for what cannot name one, UnknownProject, and
    InvalidInput for what is no concept set.
    """
    check_language_model(body.language_model)
    concepts = from_json(ConceptSet, body.concept_set.model_dump())
    spec = FindExperts(
        "language",
        None,
        name=body.name or concepts.name,
        concept_set_sha256=artifacts.put_bytes(concept_set_bytes(concepts)),
        seed=body.seed,
        language_model=body.language_model,
        layers=tuple(body.layers),
    )
    with jobs.store.write() as tx:
        project_id = asker.project(tx, body.project_id, "analyst")
        # Without a key: what lies in the folder may be another model by now. What is the same is not computed again.
        job = jobs.add(tx, asker, project_id, spec)
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
