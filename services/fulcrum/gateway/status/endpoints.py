"""Probes and figures, open to everybody who reaches the port: they hold nothing about users."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.gateway.deps import RequestId, ServicesDep
from fulcrum.gateway.errors import MEDIA_TYPE, problem
from fulcrum.gateway.figures import REGISTRY
from fulcrum.gateway.status.schemas import Health, Readiness
from fulcrum.gateway.status.service import readiness

router = APIRouter(tags=["status"])


@router.get("/healthz", response_model=Health)
async def health() -> Health:
    """200 as long as this process answers; says nothing about the others."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness)
async def ready(services: ServicesDep, request_id: RequestId) -> JSONResponse:
    """200 when store, Redis and inference can be reached; else 503 with `checks`."""
    checks = await readiness(services)
    wrong = {name: said for name, said in checks.items() if said != "ok"}
    if not wrong:
        return JSONResponse({"ready": True, "checks": checks})
    error = ServiceUnavailable("; ".join(f"{name}: {said}" for name, said in wrong.items()), 1.0)
    content = {**problem(error, request_id), "ready": False, "checks": checks}
    return JSONResponse(content, 503, {"Retry-After": "1"}, media_type=MEDIA_TYPE)


@router.get("/metrics", response_class=Response)
def metrics() -> Response:
    """Figures in Prometheus' text format."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
