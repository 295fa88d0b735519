"""The application: which resources there are, and what every request passes through on its way to them."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.domain.jobs import JobQueue
from fulcrum.gateway.auth import endpoints as auth
from fulcrum.gateway.concepts import endpoints as concepts
from fulcrum.gateway.corrections import endpoints as corrections
from fulcrum.gateway.datasets import endpoints as datasets
from fulcrum.gateway.descriptions import endpoints as descriptions
from fulcrum.gateway.errors import PROBLEM_RESPONSES, add_error_handlers, problem_schemas
from fulcrum.gateway.evaluations import endpoints as evaluations
from fulcrum.gateway.experts import endpoints as experts
from fulcrum.gateway.explain import endpoints as explain
from fulcrum.gateway.image_sets import endpoints as image_sets
from fulcrum.gateway.images import endpoints as images
from fulcrum.gateway.jobs import endpoints as jobs
from fulcrum.gateway.latents import endpoints as latents
from fulcrum.gateway.loading import open_loads
from fulcrum.gateway.middleware.body_limit import BodyLimit
from fulcrum.gateway.middleware.context import RequestContext
from fulcrum.gateway.middleware.cors import NamedOrigins
from fulcrum.gateway.middleware.failures import AnswerFailures
from fulcrum.gateway.middleware.guard import SCHEMES, Guard, is_guarded
from fulcrum.gateway.middleware.idempotency import IdempotencyKeys
from fulcrum.gateway.models import endpoints as models
from fulcrum.gateway.pages import endpoints as pages
from fulcrum.gateway.predictions import endpoints as predictions
from fulcrum.gateway.projects import endpoints as projects
from fulcrum.gateway.results import endpoints as results
from fulcrum.gateway.routing import RouteTable
from fulcrum.gateway.saes import endpoints as saes
from fulcrum.gateway.services import open_services
from fulcrum.gateway.sessions import endpoints as sessions
from fulcrum.gateway.settings import Settings
from fulcrum.gateway.status import endpoints as status
from fulcrum.gateway.steer import endpoints as steer
from fulcrum.gateway.suggest import endpoints as suggest
from fulcrum.gateway.suggestions import endpoints as suggestions
from fulcrum.gateway.sweep import endpoints as sweep
from fulcrum.gateway.tokens import endpoints as tokens
from fulcrum.gateway.users import endpoints as users
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store

# One line for each resource; each module has one `router`, whose paths start with /v1.
ROUTERS: tuple[APIRouter, ...] = (
    status.router,
    pages.router,
    auth.router,
    users.router,
    tokens.router,
    projects.router,
    images.router,
    models.router,
    saes.router,
    concepts.router,
    descriptions.router,
    experts.router,
    # Before data sets and corrections, whose `/{..._id}` would take a verb for a part of the id.
    evaluations.router,
    datasets.router,
    image_sets.router,
    sessions.router,
    corrections.router,
    results.router,
    predictions.router,
    explain.router,
    steer.router,
    sweep.router,
    suggest.router,
    latents.router,
    suggestions.router,
    jobs.router,
)


_THREADS = 40  # for calls that wait for store and artifacts; FastAPI has as many for endpoints that are no coroutines


class Gateway(FastAPI):
    """FastAPI, with a table of routes, and the shape of failures in its description."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            # An application that is described and never asked: the table of routes says nothing about itself.
            described = FastAPI(title=self.title, version=self.version, responses=PROBLEM_RESPONSES)
            for router in ROUTERS:
                described.include_router(router, dependencies=SCHEMES)
            self.openapi_schema = described.openapi()
            self.openapi_schema["components"]["schemas"].update(problem_schemas())
            for path, operations in self.openapi_schema["paths"].items():
                for method, operation in operations.items():
                    if not is_guarded(method.upper(), path):
                        del operation["security"]
        return self.openapi_schema


def create_app(
    settings: Settings | None = None,
    *,
    engine: AsyncRemoteEngine | None = None,
    store: Store | None = None,
    artifacts: Artifacts | None = None,
    redis: Redis | None = None,
    queue: JobQueue | None = None,
) -> FastAPI:
    """The gateway. What is None is opened from the settings when the application starts."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # asyncio's own would have two threads more than a small machine has cores: a few slow writers would hold all.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "gateway"))
        async with (
            open_services(
                settings, engine=engine, store=store, artifacts=artifacts, redis=redis, queue=queue
            ) as services,
            AsyncExitStack() as stack,
        ):
            app.state.services = services
            with suppress(ServiceUnavailable):  # then every look goes through a thread
                stack.enter_context(services.store.reader_of_this_thread())
            async with open_loads(services.store, services.engine) as loads:
                app.state.loads = loads
                yield

    app = Gateway(
        title="Fulcrum",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a redirect would lose the body of a POST
    )
    # The last one added is the outermost.
    app.add_middleware(IdempotencyKeys)
    app.add_middleware(Guard)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(AnswerFailures)
    if settings.cors_origins:
        app.add_middleware(NamedOrigins, origins=settings.cors_origins)
    app.add_middleware(RequestContext)
    add_error_handlers(app)
    app.router.routes.append(RouteTable(ROUTERS))
    return app
