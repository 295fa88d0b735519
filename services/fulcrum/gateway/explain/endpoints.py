"""`POST /v1/images/{image_id}:explain`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fulcrum.gateway.deps import AskerDep, services_of
from fulcrum.gateway.disconnects import unless_gone
from fulcrum.gateway.explain import service
from fulcrum.gateway.explain.schemas import ExplainQuestion
from fulcrum.gateway.loading import loads_of
from fulcrum.gateway.result_schemas import Answer, Attribution
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/images", tags=["questions"])


@router.post("/{image_id}:explain", response_model=Answer[Attribution])
async def explain_image(
    image_id: PathId,
    body: ExplainQuestion,
    request: Request,
    asker: AskerDep,
) -> JSONResponse:
    """Attributes an output to latents, measures their effects, and keeps the answer as a result."""
    services = services_of(request)
    work = service.explain(services.store, services.engine, loads_of(request), asker, image_id, body)
    return JSONResponse(await unless_gone(request, work))
