"""`POST /v1/images/{image_id}:steer`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fulcrum.gateway.deps import AskerDep, services_of
from fulcrum.gateway.disconnects import unless_gone
from fulcrum.gateway.loading import loads_of
from fulcrum.gateway.result_schemas import Answer, Effect
from fulcrum.gateway.schemas import PathId
from fulcrum.gateway.steer import service
from fulcrum.gateway.steer.schemas import SteerQuestion

router = APIRouter(prefix="/v1/images", tags=["questions"])


@router.post("/{image_id}:steer", response_model=Answer[Effect])
async def steer_image(
    image_id: PathId,
    body: SteerQuestion,
    request: Request,
    asker: AskerDep,
) -> JSONResponse:
    """Tries a correction on an image: before, after, diagnostics and controls, kept as a result.

    Nothing about the model changes: the next question finds it untouched.
    """
    services = services_of(request)
    work = service.steer(services.store, services.engine, loads_of(request), asker, image_id, body)
    return JSONResponse(await unless_gone(request, work))
