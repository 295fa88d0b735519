"""`/v1/image-sets`: images that somebody chose, as tags and slices, and as lists that must keep their answers."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.deps import (
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    ServicesDep,
    StoreDep,
    answer,
    answer_page,
)
from fulcrum.gateway.image_sets import service
from fulcrum.gateway.image_sets.schemas import ImageSetChange, ImageSetPurpose, ImageSetRecord, NewImageSet
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/image-sets", tags=["image sets"])


@router.post("", status_code=201, response_model=ImageSetRecord)
def make_image_set(body: NewImageSet, asker: AskerDep, services: ServicesDep) -> JSONResponse:
    """Keeps images of a data set under a name; images that it does not have are refused by name."""
    return answer(service.make(services, asker, body), 201)


@router.get("", response_model=PageOf[ImageSetRecord])
def list_image_sets(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    dataset_id: Annotated[str | None, Query(max_length=64, description="Of this data set only.")] = None,
    purpose: Annotated[ImageSetPurpose | None, Query(description="Of this purpose only.")] = None,
) -> JSONResponse:
    """Image sets of a project, newest first."""
    found = service.page(store, asker, project_id, page, dataset_id=dataset_id, purpose=purpose)
    return answer_page(found)


@router.get("/{image_set_id}", response_model=ImageSetRecord)
def get_image_set(image_set_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One set, without its images."""
    return answer(service.get(store, asker, image_set_id))


@router.get("/{image_set_id}/images", response_model=PageOf[str])
def list_image_set_images(
    image_set_id: PathId, asker: AskerDep, services: ServicesDep, page: PageDep
) -> JSONResponse:
    """Ids of its images, in order. `/v1/datasets/{id}/images?image_set_id=` shows the images themselves."""
    return answer_page(service.image_ids(services, asker, image_set_id, page))


@router.patch("/{image_set_id}", response_model=ImageSetRecord)
def change_image_set(
    image_set_id: PathId, body: ImageSetChange, asker: AskerDep, services: ServicesDep, expected: IfMatch
) -> JSONResponse:
    """Changes words or images. Evaluations that judged it keep what it was, and say that it changed."""
    return answer(service.change(services, asker, image_set_id, body, expected))


@router.delete("/{image_set_id}", status_code=204)
def delete_image_set(image_set_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the set and frees its name. The images, and evaluations that judged it, stay."""
    service.remove(store, asker, image_set_id, expected)
    return Response(status_code=204)


@router.post("/{image_set_id}:restore", response_model=ImageSetRecord)
def restore_image_set(image_set_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Brings a deleted set back under its name; refused while another set of the data set has that name."""
    return answer(service.restore(store, asker, image_set_id))
