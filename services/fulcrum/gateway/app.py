"""The application: which resources there are, and what every request passes through on its way to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis

from fulcrum.gateway.errors import PROBLEM_RESPONSES, add_error_handlers
from fulcrum.gateway.middleware.context import RequestContext
from fulcrum.gateway.middleware.guard import Guard
from fulcrum.gateway.services import open_services
from fulcrum.gateway.settings import Settings
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.store import Store
from fulcrum.store.artifacts import Artifacts

# One line for each resource; each module has one `router`, whose paths start with /v1.
ROUTERS: tuple[APIRouter, ...] = ()


def create_app(
    settings: Settings | None = None,
    *,
    engine: AsyncRemoteEngine | None = None,
    store: Store | None = None,
    artifacts: Artifacts | None = None,
    redis: Redis | None = None,
) -> FastAPI:
    """The gateway. What is None is opened from the settings when the application starts."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(
            settings, engine=engine, store=store, artifacts=artifacts, redis=redis
        ) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Fulcrum",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=PROBLEM_RESPONSES,
        redirect_slashes=False,  # a redirect would lose the body of a POST
    )
    # The last one added is the outermost.
    app.add_middleware(Guard)
    app.add_middleware(RequestContext)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
