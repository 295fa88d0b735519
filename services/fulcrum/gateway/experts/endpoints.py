"""`/v1/experts`: which units know which concepts, never without random weights and baselines beside them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from fulcrum.domain.codec import to_json
from fulcrum.gateway.corrections.schemas import CorrectionRecord
from fulcrum.gateway.deps import (
    ArtifactsDep,
    AskerDep,
    EngineDep,
    PageDep,
    PageOf,
    ProjectParam,
    ServicesDep,
    StoreDep,
    answer,
    answer_page,
    run_in_thread,
)
from fulcrum.gateway.experts import asking, correcting, service
from fulcrum.gateway.experts.schemas import (
    AlignmentQuestion,
    ApDistribution,
    ConceptSet,
    ConceptStructures,
    ExpertCorrection,
    ExpertCount,
    Experts,
    ExpertsRecord,
    ExpertStability,
    ExpertUnit,
    LanguageExpertsQuestion,
    LatentExpertsQuestion,
    LayerProfile,
    RuleName,
    TowerExpertsQuestion,
    UnitSort,
)
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.schemas import PathId

router = APIRouter(tags=["experts"])

Concept = Annotated[str, Query(max_length=200, description="Name of the concept.")]
Rule = Annotated[
    RuleName | None, Query(description="How experts are chosen; left out: the search's `shown_rule`.")
]
Value = Annotated[float | None, Query(description="k of `top_k`, or tau of `tau`.", allow_inf_nan=False)]


@router.post("/v1/saes/{sae_id}:find-experts", status_code=202, response_model=JobRecord)
def find_latent_experts(
    sae_id: PathId, body: LatentExpertsQuestion, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Ranks all latents as detectors of concepts, as a job whose result names the search.

    The data set is indexed first where it is not. Random weights with an untrained SAE of the same shape, and
    baselines from the same images, are computed beside it.
    """
    return answer(asking.among_latents(jobs, asker, sae_id, body), 202)


@router.post("/v1/models/{model_id}:find-experts", status_code=202, response_model=JobRecord)
async def find_unit_experts(
    model_id: PathId,
    body: TowerExpertsQuestion,
    asker: AskerDep,
    jobs: SubmitDep,
    artifacts: ArtifactsDep,
    engine: EngineDep,
) -> JSONResponse:
    """Ranks all units of the vision tower over images, or of the text tower over sentences, as a job.

    Responses are kept: another search over the same images or sentences runs no forward pass. A sentence that is too
    long for the tower is refused.
    """
    concepts = await run_in_thread(asking.concepts_of, body)
    if concepts is not None:
        await asking.check_lengths(jobs.store, engine, asker, model_id, concepts)
    job = await run_in_thread(asking.among_units, jobs, artifacts, asker, model_id, body, concepts)
    return answer(job, 202)


@router.post("/v1/experts:find", status_code=202, response_model=JobRecord)
def find_language_experts(
    body: LanguageExpertsQuestion, asker: AskerDep, jobs: SubmitDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """Ranks the units of all linear layers of a language model over sentences, as a job.

    The model has to be on the workers' machine: nothing is fetched, and no code of it is run. Responses are kept:
    another search over the same sentences runs no forward pass.
    """
    return answer(asking.among_layers(jobs, artifacts, asker, body), 202)


@router.post("/v1/experts/{experts_id}:align", status_code=202, response_model=JobRecord)
def align_experts(
    experts_id: PathId,
    body: AlignmentQuestion,
    asker: AskerDep,
    jobs: SubmitDep,
    services: ServicesDep,
    artifacts: ArtifactsDep,
) -> JSONResponse:
    """Compares the concepts of a search with what people say of them, as a job that runs no forward pass.

    Its result names a search of the same name, with `alignments`: rank correlations with intervals, Mantel's p, the
    ceilings, and all of it for random weights and baselines too.
    """
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer(asking.align(jobs, artifacts, asker, experts_id, found.table, body), 202)


@router.post("/v1/experts/{experts_id}:correct", status_code=201, response_model=CorrectionRecord)
async def correct_by_experts(
    experts_id: PathId, body: ExpertCorrection, asker: AskerDep, services: ServicesDep, loads: LoadsDep
) -> JSONResponse:
    """Saves a correction that changes the experts of a concept in one layer, as a draft with version 1.

    Among units of the vision tower it edits the layer's units themselves, which stand among the model's SAEs as
    `units:<layer>` from then on. Model and dictionary are loaded first where they are not. The origin names the images
    that the units were chosen by: they can prove nothing about the correction.
    """
    store, user = services.store, asker.user.id
    found = await run_in_thread(service.find, store, services.concept_files, asker, experts_id)
    planned = await run_in_thread(correcting.plan, store, services.dataset_files, asker, found, body)
    model = await loads.model(planned.model, user)
    sae = await loads.sae(planned.sae, model, user)
    return answer(await run_in_thread(correcting.keep, store, asker, planned, model, sae), 201)


@router.get("/v1/experts", response_model=PageOf[ExpertsRecord])
def list_experts(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    units: Annotated[
        Literal["latents", "vision", "text", "language"] | None,
        Query(description="Searches among these units only."),
    ] = None,
    model_id: Annotated[str | None, Query(max_length=64, description="Of this model only.")] = None,
    sae_id: Annotated[str | None, Query(max_length=64, description="Of this SAE only.")] = None,
    dataset_id: Annotated[str | None, Query(max_length=64, description="Over this data set only.")] = None,
) -> JSONResponse:
    """Searches of a project, newest first."""
    found = service.page(
        store, asker, project_id, page, units=units, model_id=model_id, sae_id=sae_id, dataset_id=dataset_id
    )
    return answer_page(found)


@router.get("/v1/experts/{experts_id}", response_model=Experts)
def get_experts(experts_id: PathId, asker: AskerDep, services: ServicesDep) -> JSONResponse:
    """One search: its concepts, layers and rules, and a line for each way of comparing the concepts."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer(service.get(found))


@router.get("/v1/experts/{experts_id}/concept-set", response_model=ConceptSet)
def get_concept_set(
    experts_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """The sentences that a search was asked with, to go on from. A search over images has none."""
    return answer(service.concept_set(store, artifacts, asker, experts_id))


@router.get("/v1/experts/{experts_id}/units", response_model=PageOf[ExpertUnit])
def list_units(
    experts_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    page: PageDep,
    concept: Concept,
    sort: Annotated[UnitSort, Query(description="What they are ordered by.")] = "ap",
    descending: Annotated[bool, Query(description="The largest first.")] = True,
    layer: Annotated[str | None, Query(max_length=200, description="Units of this layer only.")] = None,
) -> JSONResponse:
    """Units for one concept. A page belongs to its order: change it, and start without cursor."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer_page(service.units(found, page, concept, sort, descending, layer))


@router.get("/v1/experts/{experts_id}/units/{number}", response_model=list[ExpertUnit])
def get_unit(
    experts_id: PathId,
    number: Annotated[int, Path(ge=0, le=2**31 - 1, description="Number of the unit among all.")],
    asker: AskerDep,
    services: ServicesDep,
) -> JSONResponse:
    """One unit for every concept, highest AP first."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return JSONResponse(to_json(service.concepts_of_unit(found, number)))


@router.get("/v1/experts/{experts_id}/counts", response_model=list[ExpertCount])
def count_experts(
    experts_id: PathId, asker: AskerDep, services: ServicesDep, rule: Rule = None, value: Value = None
) -> JSONResponse:
    """Experts of every concept by `top_k` or `tau`, at any value: what a slider shows while it moves."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return JSONResponse(to_json(found.table.counts(service.rule_of(found, rule, value))))


@router.get("/v1/experts/{experts_id}/profile", response_model=LayerProfile)
def get_profile(
    experts_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    concept: Concept,
    rule: Rule = None,
    value: Value = None,
) -> JSONResponse:
    """Where in the model the experts of a concept lie."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer(found.table.profile(concept, service.rule_of(found, rule, value)))


@router.get("/v1/experts/{experts_id}/distribution", response_model=ApDistribution)
def get_distribution(
    experts_id: PathId, asker: AskerDep, services: ServicesDep, concept: Concept
) -> JSONResponse:
    """Units by AP for one concept."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer(found.table.distribution(concept))


@router.get("/v1/experts/{experts_id}/structure", response_model=ConceptStructures)
def get_structure(
    experts_id: PathId, asker: AskerDep, services: ServicesDep, rule: Rule = None, value: Value = None
) -> JSONResponse:
    """How the concepts lie by one of the search's rules: similarities, clusters, dendrogram, map."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    return answer(found.table.structures(service.rule_of(found, rule, value)))


@router.get("/v1/experts/{experts_id}/stability", response_model=ExpertStability)
def get_stability(
    experts_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    other_id: Annotated[str, Query(max_length=64, description="The search that it is compared with.")],
    rule: Rule = None,
    value: Value = None,
) -> JSONResponse:
    """Whether concepts of the same names have the same experts there: other examples, checkpoints or models."""
    found = service.find(services.store, services.concept_files, asker, experts_id)
    other = service.find(services.store, services.concept_files, asker, other_id)
    return answer(service.stability(found, other, service.rule_of(found, rule, value)))
