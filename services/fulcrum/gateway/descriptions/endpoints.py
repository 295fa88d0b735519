"""`/v1/indexes` and what is known about the latents of an SAE, each number from an index and without a forward pass."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from fulcrum.domain.codec import to_json
from fulcrum.gateway.deps import (
    AskerDep,
    EngineDep,
    PageDep,
    PageOf,
    ProjectParam,
    ServicesDep,
    StoreDep,
    answer,
    answer_page,
)
from fulcrum.gateway.descriptions import asking, searching, service
from fulcrum.gateway.descriptions.schemas import (
    DescribedLatent,
    DescribeQuestion,
    DescriptionRecord,
    IndexQuestion,
    IndexRecord,
    LatentCard,
    LatentDetail,
    LatentHit,
    LatentMap,
    LatentSearch,
    LatentSort,
    TopImage,
)
from fulcrum.gateway.disconnects import unless_gone
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.schemas import PathId

router = APIRouter(tags=["latents"])

Latent = Annotated[int, Path(ge=0, le=2**31 - 1, description="Index of the latent.")]
DatasetParam = Annotated[
    str | None,
    Query(
        alias="dataset_id",
        max_length=64,
        description="By the description from this data set; the newest by default.",
    ),
]


@router.post("/v1/datasets/{dataset_id}:index", status_code=202, response_model=JobRecord)
def index_dataset(dataset_id: PathId, body: IndexQuestion, asker: AskerDep, jobs: SubmitDep) -> JSONResponse:
    """Encodes the images of a data set under an SAE, as a job; images that any index holds are not encoded again."""
    return answer(asking.index(jobs, asker, dataset_id, body.sae_id), 202)


@router.post("/v1/saes/{sae_id}:describe", status_code=202, response_model=JobRecord)
def describe_latents(
    sae_id: PathId, body: DescribeQuestion, asker: AskerDep, jobs: SubmitDep
) -> JSONResponse:
    """Finds out what the latents stand for, as a job, after the index where that is missing.

    Labels that people gave stay.
    """
    return answer(asking.describe(jobs, asker, sae_id, body), 202)


@router.get("/v1/indexes", response_model=PageOf[IndexRecord])
def list_indexes(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    dataset_id: Annotated[str | None, Query(max_length=64, description="Of this data set only.")] = None,
    sae_id: Annotated[str | None, Query(max_length=64, description="Under this SAE only.")] = None,
) -> JSONResponse:
    """Indexes of a project, newest first."""
    return answer_page(service.indexes(store, asker, project_id, dataset_id, sae_id, page))


@router.get("/v1/saes/{sae_id}/descriptions", response_model=PageOf[DescriptionRecord])
def list_descriptions(sae_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Descriptions of an SAE's latents, newest first."""
    return answer_page(service.descriptions(store, asker, sae_id, page))


@router.get("/v1/saes/{sae_id}/latents", response_model=PageOf[DescribedLatent])
def list_latents(
    sae_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    page: PageDep,
    sort: Annotated[LatentSort, Query(description="What they are ordered by.")] = "image_rate",
    descending: Annotated[bool, Query(description="The largest first.")] = True,
    q: Annotated[str | None, Query(max_length=200, description="Words in the label.")] = None,
    labelled_by: Annotated[
        Literal["auto", "person"] | None, Query(description="Those with a label from there only.")
    ] = None,
    image_rate_max: Annotated[
        float | None, Query(ge=0, le=1, description="Those that fire in at most this share of images.")
    ] = None,
    dataset_id: DatasetParam = None,
) -> JSONResponse:
    """Latents that fire at least once. A page belongs to its order: change it, and start without cursor."""
    about = service.described(services.store, services.concept_files, asker, sae_id, dataset_id)
    return answer_page(service.latents(about, page, sort, descending, q, labelled_by, image_rate_max))


@router.get("/v1/saes/{sae_id}/latents:batch", response_model=list[LatentCard])
def get_latent_cards(
    sae_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    latents: Annotated[
        str,
        Query(
            pattern=r"^[0-9]{1,9}(,[0-9]{1,9}){0,99}$",
            description="Up to 100 latents, separated by commas; the answer keeps their order.",
        ),
    ],
    n_examples: Annotated[int, Query(ge=0, le=16, description="Top images of each.")] = 4,
    dataset_id: DatasetParam = None,
) -> JSONResponse:
    """Label, rates and examples of many latents at once: what a page of attributions needs."""
    wanted = [int(n) for n in latents.split(",")]
    about = service.described(services.store, services.concept_files, asker, sae_id, dataset_id)
    index = services.concept_files.index(about.index)
    return JSONResponse(to_json(service.cards(about, index, wanted, n_examples)))


@router.get("/v1/saes/{sae_id}/latents/{latent}", response_model=LatentDetail)
def get_latent(
    sae_id: PathId, latent: Latent, asker: AskerDep, services: ServicesDep, dataset_id: DatasetParam = None
) -> JSONResponse:
    """All that is known about one latent."""
    about = service.described(services.store, services.concept_files, asker, sae_id, dataset_id)
    about.columns.row(latent)  # refuses one that the SAE does not have
    with services.store.read() as tx:
        concept = tx.concepts.by_latent(sae_id, latent)
    return answer(service.detail(about, latent, concept))


@router.get("/v1/saes/{sae_id}/latents/{latent}/top-images", response_model=list[TopImage])
def get_top_images(
    sae_id: PathId,
    latent: Latent,
    asker: AskerDep,
    services: ServicesDep,
    by: Annotated[Literal["max", "mean"], Query(description="By maximum or by mean over tokens.")] = "max",
    n: Annotated[int, Query(ge=1, le=64, description="How many; at most as many as were described.")] = 16,
    dataset_id: DatasetParam = None,
) -> JSONResponse:
    """Images where the latent is strongest, with where in them it is stored; none of a latent that never fires."""
    about = service.described(services.store, services.concept_files, asker, sae_id, dataset_id)
    index = services.concept_files.index(about.index)
    return JSONResponse(to_json(service.top_images(about, index, latent, by, n)))


@router.get("/v1/saes/{sae_id}/map", response_model=LatentMap)
def get_map(
    sae_id: PathId, asker: AskerDep, services: ServicesDep, dataset_id: DatasetParam = None
) -> JSONResponse:
    """Latents on a plane: those of like meaning lie together."""
    about = service.described(services.store, services.concept_files, asker, sae_id, dataset_id)
    return answer(service.latent_map(about))


@router.post("/v1/saes/{sae_id}:search", response_model=list[LatentHit])
async def search_latents(
    sae_id: PathId,
    body: LatentSearch,
    request: Request,
    asker: AskerDep,
    services: ServicesDep,
    engine: EngineDep,
    loads: LoadsDep,
) -> JSONResponse:
    """Latents by words or by an image, best first; nothing is kept."""
    work = searching.search(services.store, services.concept_files, engine, loads, asker, sae_id, body)
    return JSONResponse(to_json(await unless_gone(request, work)))
