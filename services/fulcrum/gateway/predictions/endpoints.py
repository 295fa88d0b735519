"""`POST /v1/predictions`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fulcrum.gateway.deps import AskerDep, services_of
from fulcrum.gateway.disconnects import unless_gone
from fulcrum.gateway.loading import loads_of
from fulcrum.gateway.predictions import service
from fulcrum.gateway.predictions.schemas import PredictQuestion
from fulcrum.gateway.result_schemas import Answer, Prediction, SteeredPrediction

router = APIRouter(prefix="/v1/predictions", tags=["questions"])


@router.post("", response_model=Answer[list[Prediction] | list[SteeredPrediction]])
async def predict_images(
    body: PredictQuestion,
    request: Request,
    asker: AskerDep,
) -> JSONResponse:
    """Zero-shot predictions of many images, kept as one result: plain, or before and after a correction."""
    services = services_of(request)
    work = service.predict(services.store, services.engine, loads_of(request), asker, body)
    return JSONResponse(await unless_gone(request, work))
