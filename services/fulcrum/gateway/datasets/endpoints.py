"""`/v1/datasets`: records of data sets, and their images. Importing images into one is a job."""

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from fulcrum.domain import datasets as domain
from fulcrum.domain.codec import to_json
from fulcrum.domain.datasets import ImageBy
from fulcrum.domain.errors import UnknownImage
from fulcrum.domain.records import ImageRecord
from fulcrum.gateway import picture_answers
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.datasets import browsing, importing, service
from fulcrum.gateway.datasets.schemas import (
    DatasetChange,
    DatasetImage,
    DatasetRecord,
    DatasetVersion,
    Facets,
    ImportQuestion,
    ImportReport,
    NewDataset,
    Thumbnail,
    ThumbnailsQuestion,
)
from fulcrum.gateway.deps import (
    ArtifactsDep,
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    ServicesDep,
    SettingsDep,
    StoreDep,
    answer,
    answer_page,
    run_in_thread,
)
from fulcrum.gateway.image_sets import service as image_sets
from fulcrum.gateway.images.pictures import media_type_of
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.schemas import Id, Name, PathId
from fulcrum.gateway.services import Services

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

ImageName = Annotated[
    str,
    Path(max_length=4000, description="Id of the image in the data set, percent-encoded, or what `by` says."),
]
By = Annotated[
    ImageBy,
    Query(
        description="What the path names it by. A sha256 is a name for ever, and its answer may be kept so."
    ),
]
Digest = Annotated[
    str | None,
    Query(max_length=64, description="Content of the data set that is meant; the present one by default."),
]


async def _wanted(
    split: Annotated[str | None, Query(max_length=400, description="Images of this split only.")] = None,
    label: Annotated[str | None, Query(max_length=400, description="Of this label only.")] = None,
    where: Annotated[
        list[Annotated[str, Query(max_length=400)]] | None,
        Query(
            max_length=16,
            description="`column=value`, several must all hold: a group, `label`, `split`, `pair_id`, or a covariate "
            "by its quarter (`covariate_size=q4`). An empty value is that of images without one.",
        ),
    ] = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in the id.")] = None,
    image_set_id: Annotated[
        str | None, Query(max_length=64, description="Images of this image set only.")
    ] = None,
) -> browsing.Filter:
    """Reads the filters."""
    return browsing.Filter(split, label, tuple(where or ()), q, image_set_id)


FilterDep = Annotated[browsing.Filter, Depends(_wanted)]
_PICTURE = {"image/*": {"schema": {"type": "string", "format": "binary"}}}


@router.post("", status_code=201, response_model=DatasetRecord)
def make_dataset(body: NewDataset, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Makes an empty data set."""
    return answer(service.make(store, asker, body), 201)


@router.get("", response_model=PageOf[DatasetRecord])
def list_datasets(
    asker: AskerDep, store: StoreDep, page: PageDep, project_id: ProjectParam = None
) -> JSONResponse:
    """Data sets of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, page))


@router.get("/{dataset_id}", response_model=DatasetRecord)
def get_dataset(dataset_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One data set."""
    return answer(service.get(store, asker, dataset_id))


@router.patch("/{dataset_id}", response_model=DatasetRecord)
def change_dataset(
    dataset_id: PathId, body: DatasetChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes name or description; images and digest stay."""
    return answer(service.change(store, asker, dataset_id, body, expected))


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the data set and frees its name. Results that were computed on it stay."""
    service.remove(store, asker, dataset_id, expected)
    return Response(status_code=204)


@router.post("/{dataset_id}:import", status_code=202, response_model=JobRecord)
def import_images(
    dataset_id: PathId, body: ImportQuestion, asker: AskerDep, jobs: SubmitDep, settings: SettingsDep
) -> JSONResponse:
    """Imports images as a job: checked, divided into splits where they have none, duplicates together.

    The data set is `ready` when the job has succeeded, and unchanged when it has not. Importing again replaces its
    content, which makes evaluations of the content before stale; of two imports at once the slower one fails.
    With `model_id` the images are embedded as they are checked, and those that this model takes for nearly the same
    count as duplicates also where their hashes differ.
    """
    return answer(importing.from_place(jobs, asker, dataset_id, body, settings), 202)


@router.post(
    "/{dataset_id}:upload",
    status_code=202,
    response_model=JobRecord,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_archive(
    dataset_id: PathId,
    request: Request,
    asker: AskerDep,
    services: ServicesDep,
    jobs: SubmitDep,
    format: Annotated[
        Name | None, Query(description="Format of the data set; by default it is recognised.")
    ] = None,
    new_splits: Annotated[
        bool, Query(description="Divide the images anew whatever splits they have.")
    ] = False,
    seed: Annotated[int, Query(ge=0, le=2**31 - 1, description="Of the new splits.")] = 0,
    model_id: Annotated[
        Id | None,
        Query(
            description="Registered model by whose embeddings near-duplicates are found too, as in `:import`."
        ),
    ] = None,
) -> JSONResponse:
    """Imports the images of a zip, tar or tar.gz, as `:import` does. The body is the archive itself."""
    wanted = importing.Wanted(format, new_splits, seed, model_id)
    return answer(await importing.from_archive(request, services, jobs, asker, dataset_id, wanted), 202)


@router.get("/{dataset_id}/facets", response_model=Facets)
def get_facets(
    dataset_id: PathId, asker: AskerDep, services: ServicesDep, wanted: FilterDep, digest: Digest = None
) -> JSONResponse:
    """How many images there are of each split, label, group and covariate, among those that the filters leave."""
    at = browsing.content(services.store, services.dataset_files, asker, dataset_id, digest)
    return answer(browsing.facets(at, _with_set(services, asker, dataset_id, wanted)))


@router.get("/{dataset_id}/report", response_model=ImportReport)
def get_import_report(
    dataset_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep, digest: Digest = None
) -> JSONResponse:
    """What the import found: images left out, duplicates, and what leaks between splits."""
    return JSONResponse(browsing.report(store, artifacts, asker, dataset_id, digest))


@router.get("/{dataset_id}/versions", response_model=PageOf[DatasetVersion])
def list_dataset_versions(
    dataset_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep
) -> JSONResponse:
    """Contents that the data set has and had, newest first; each can be looked at by its digest."""
    return answer_page(browsing.versions(store, asker, dataset_id, page))


@router.get("/{dataset_id}/images", response_model=PageOf[DatasetImage])
def list_dataset_images(
    dataset_id: PathId,
    asker: AskerDep,
    services: ServicesDep,
    page: PageDep,
    wanted: FilterDep,
    digest: Digest = None,
) -> JSONResponse:
    """Images in the order of their ids. A page belongs to its filters and content: change them, and begin anew."""
    at = browsing.content(services.store, services.dataset_files, asker, dataset_id, digest)
    return answer_page(browsing.page(at, page, _with_set(services, asker, dataset_id, wanted)))


@router.get(
    "/{dataset_id}/images/{image:path}/content",
    response_class=Response,
    responses={200: {"content": _PICTURE}},
)
async def get_dataset_image_content(
    dataset_id: PathId,
    image: ImageName,
    request: Request,
    asker: AskerDep,
    services: ServicesDep,
    by: By = "id",
    digest: Digest = None,
) -> Response:
    """The bytes as they were imported."""
    _, found = await run_in_thread(_found, services, asker, dataset_id, image, by, digest)
    cache = _cache(by, digest)
    known = picture_answers.not_modified(request, found.sha256, cache)
    if known is not None:
        return known
    content = await run_in_thread(services.artifacts.read_bytes, found.sha256)
    return picture_answers.picture_answer(
        request, content, media_type_of(content), found.sha256, found.id, cache
    )


@router.get(
    "/{dataset_id}/images/{image:path}/thumbnail",
    response_class=Response,
    responses={200: {"content": _PICTURE}},
)
async def get_dataset_image_thumbnail(
    dataset_id: PathId,
    image: ImageName,
    request: Request,
    asker: AskerDep,
    services: ServicesDep,
    by: By = "id",
    digest: Digest = None,
) -> Response:
    """A JPEG of at most 256 x 256 pixels, upright."""
    at, found = await run_in_thread(_found, services, asker, dataset_id, image, by, digest)
    cache, tag = _cache(by, digest), f"{found.sha256}-256"
    known = picture_answers.not_modified(request, tag, cache)
    if known is not None:
        return known
    content = await browsing.thumbnail(services, at, found.number)
    return picture_answers.picture_answer(request, content, "image/jpeg", tag, f"{found.id}.jpg", cache)


@router.get(
    "/{dataset_id}/images/{image:path}/mask",
    response_class=Response,
    responses={200: {"content": _PICTURE}},
)
async def get_dataset_image_mask(
    dataset_id: PathId,
    image: ImageName,
    request: Request,
    asker: AskerDep,
    services: ServicesDep,
    by: By = "id",
    digest: Digest = None,
) -> Response:
    """The mask that was imported with an image."""
    _, found = await run_in_thread(_found, services, asker, dataset_id, image, by, digest)
    if found.mask_sha256 is None:
        raise UnknownImage(f"image {found.id!r} has no mask")
    # Of two images with the same bytes each may have its own mask, so the hash of the image is no name for it.
    cache = picture_answers.IMMUTABLE if digest is not None and by != "sha256" else picture_answers.ASK_AGAIN
    known = picture_answers.not_modified(request, found.mask_sha256, cache)
    if known is not None:
        return known
    content = await run_in_thread(services.artifacts.read_bytes, found.mask_sha256)
    return picture_answers.picture_answer(
        request, content, media_type_of(content), found.mask_sha256, f"{found.id}.mask", cache
    )


@router.post(
    "/{dataset_id}/images/{image:path}:open",
    status_code=201,
    response_model=ImageRecord,
    responses={200: {"model": ImageRecord}},
)
async def open_dataset_image(
    dataset_id: PathId,
    image: ImageName,
    asker: AskerDep,
    services: ServicesDep,
    by: By = "id",
    digest: Digest = None,
) -> JSONResponse:
    """Makes it an image of the project, as if it had been uploaded, so that questions can be asked about it.

    An image with this content that the project has already is answered with 200.
    """
    at = await run_in_thread(
        browsing.content, services.store, services.dataset_files, asker, dataset_id, digest
    )
    record, is_new = await browsing.open_image(services, asker, at, browsing.image(at, image, by))
    return answer(record, 201 if is_new else 200)


@router.post("/{dataset_id}/images:thumbnails", response_model=list[Thumbnail])
async def get_dataset_thumbnails(
    dataset_id: PathId, body: ThumbnailsQuestion, asker: AskerDep, services: ServicesDep
) -> JSONResponse:
    """Small pictures of up to 200 images at once, in the order asked for: what a page of them needs."""
    at = await run_in_thread(
        browsing.content, services.store, services.dataset_files, asker, dataset_id, body.digest
    )
    numbers = [at.opened.number(i.name, i.by) for i in body.images]
    return JSONResponse(to_json(await browsing.thumbnails(services, at, numbers)))


@router.get("/{dataset_id}/images/{image:path}", response_model=DatasetImage)
def get_dataset_image(
    dataset_id: PathId,
    image: ImageName,
    asker: AskerDep,
    services: ServicesDep,
    by: By = "id",
    digest: Digest = None,
) -> JSONResponse:
    """What is known about one image."""
    return answer(_found(services, asker, dataset_id, image, by, digest)[1])


def _with_set(services: Services, asker: Asker, dataset_id: str, wanted: browsing.Filter) -> browsing.Filter:
    if wanted.image_set_id is None:
        return wanted
    ids = image_sets.ids_of(services, asker, wanted.image_set_id, dataset_id)
    return dataclasses.replace(wanted, ids=ids)


def _found(
    services: Services, asker: Asker, dataset_id: str, image: str, by: ImageBy, digest: str | None
) -> tuple[browsing.Content, domain.DatasetImage]:
    at = browsing.content(services.store, services.dataset_files, asker, dataset_id, digest)
    return at, browsing.image(at, image, by)


def _cache(by: ImageBy, digest: str | None) -> str:
    names_content = by == "sha256" or digest is not None
    return picture_answers.IMMUTABLE if names_content else picture_answers.ASK_AGAIN
