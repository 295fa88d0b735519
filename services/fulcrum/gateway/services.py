"""What the endpoints stand on, opened once for the application: store, artifacts, engine, Redis."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
from redis.asyncio import Redis

from fulcrum import telemetry
from fulcrum.broker.waking import CeleryQueue
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.jobs import JobQueue
from fulcrum.gateway.datasets.reading import DatasetFiles
from fulcrum.gateway.descriptions.reading import ConceptFiles
from fulcrum.gateway.settings import Settings
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.channels import TlsFiles, addresses_of
from fulcrum.store.artifacts import Artifacts, open_artifacts
from fulcrum.store.database import Store, open_store


@dataclass(frozen=True)
class Services:
    """Lives in `app.state.services` between start and stop."""

    settings: Settings
    store: Store
    artifacts: Artifacts
    engine: AsyncRemoteEngine
    redis: Redis
    queue: JobQueue
    concept_files: ConceptFiles
    dataset_files: DatasetFiles


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    engine: AsyncRemoteEngine | None = None,
    store: Store | None = None,
    artifacts: Artifacts | None = None,
    redis: Redis | None = None,
    queue: JobQueue | None = None,
) -> AsyncIterator[Services]:
    """Opens what is None from the settings, and closes only that again."""
    async with AsyncExitStack() as stack:
        if store is None:
            store = await anyio.to_thread.run_sync(open_store, settings.database_url)
            stack.push_async_callback(anyio.to_thread.run_sync, store.close)
        if artifacts is None:
            artifacts = open_artifacts(settings.artifacts_url)
        if redis is None:
            redis = open_redis(settings)
            stack.push_async_callback(redis.aclose)
        if queue is None:
            queue = CeleryQueue(settings.redis_url.get_secret_value())
            stack.push_async_callback(anyio.to_thread.run_sync, queue.close)
        if engine is None:
            engine = open_engine(settings)
            stack.push_async_callback(engine.aclose)
        files = ConceptFiles(artifacts)
        stack.push_async_callback(anyio.to_thread.run_sync, files.close)
        yield Services(settings, store, artifacts, engine, redis, queue, files, DatasetFiles(artifacts))


def check_settings(settings: Settings) -> None:
    """Raises InvalidSettings, MissingDependency for what cannot work, before a server is started on it."""
    open_store(settings.database_url).close()
    open_artifacts(settings.artifacts_url)
    open_redis(settings)
    addresses_of(settings.inference_address)


def open_redis(settings: Settings) -> Redis:
    """Redis behind the settings' URL; connects at the first command. Raises InvalidSettings."""
    try:
        # Short waits: counting a request must not take longer than the request.
        return Redis.from_url(
            settings.redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2
        )
    except ValueError as error:
        raise InvalidSettings(f"the URL of Redis cannot be read: {error}") from None


def open_engine(settings: Settings) -> AsyncRemoteEngine:
    """The inference service behind the settings' address. Opens no connection yet."""
    token = settings.inference_token
    tls = None
    if settings.inference_tls_ca is not None:
        tls = TlsFiles(settings.inference_tls_ca, settings.inference_tls_cert, settings.inference_tls_key)
    return AsyncRemoteEngine(
        settings.inference_address,
        token=None if token is None else token.get_secret_value(),
        tls=tls,
        timeout_s=settings.inference_timeout_s,
        carried=_carried,
    )


def _carried() -> dict[str, str]:
    """So that the logs and traces of both services tell of one request by one id."""
    number = telemetry.request_id.get()
    return ({} if number is None else {"x-fulcrum-request-id": number}) | telemetry.outgoing_trace()
