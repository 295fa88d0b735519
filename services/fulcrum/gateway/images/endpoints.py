"""Images to ask about."""

from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from fulcrum.domain.records import ImageRecord
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
    run_in_thread,
)
from fulcrum.gateway.images import service
from fulcrum.gateway.picture_answers import picture_answer

router = APIRouter(prefix="/v1/images", tags=["images"])


@router.post("", status_code=201, response_model=ImageRecord, responses={200: {"model": ImageRecord}})
async def upload_image(
    file: Annotated[UploadFile, File(description="PNG, JPEG or WebP.")],
    asker: AskerDep,
    services: ServicesDep,
    project_id: Annotated[str | None, Form(max_length=64)] = None,
) -> JSONResponse:
    """Keeps an image. The same bytes again answer 200 with the record that is there."""
    record, is_new = await service.upload(
        services.store,
        services.artifacts,
        asker,
        file.file,
        file.filename or "",
        project_id,
        services.settings.max_upload_bytes,
    )
    return answer(record, 201 if is_new else 200)


@router.get("", response_model=PageOf[ImageRecord])
def list_images(
    asker: AskerDep, store: StoreDep, page: PageDep, project_id: ProjectParam = None
) -> JSONResponse:
    """A project's images, newest first."""
    return answer_page(service.list_images(store, asker, project_id, page))


@router.get("/{image_id}", response_model=ImageRecord)
def get_image(image_id: str, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """What is known about an image."""
    return answer(service.get(store, asker, image_id))


@router.get("/{image_id}/content", response_class=Response, responses={200: {"content": {"image/*": {}}}})
async def get_content(image_id: str, request: Request, asker: AskerDep, services: ServicesDep) -> Response:
    """The bytes as they were uploaded."""
    record, content = await run_in_thread(
        service.content, services.store, services.artifacts, asker, image_id
    )
    return picture_answer(request, content, record.media_type, record.sha256, record.filename)


@router.get(
    "/{image_id}/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}}
)
async def get_thumbnail(image_id: str, request: Request, asker: AskerDep, services: ServicesDep) -> Response:
    """A JPEG of at most 256 x 256 pixels, upright."""
    record, content = await service.small_picture(services.store, services.artifacts, asker, image_id)
    return picture_answer(request, content, "image/jpeg", f"{record.sha256}-256", f"{record.id}.jpg")


@router.delete("/{image_id}", status_code=204, response_class=Response)
def delete_image(image_id: str, asker: AskerDep, store: StoreDep, version: IfMatch) -> Response:
    """Takes an image out of its project. Answers that were computed from it stay."""
    service.delete(store, asker, image_id, version)
    return Response(status_code=204)
