"""Whether all that an answer needs can be reached."""

import asyncio
from collections.abc import Awaitable

from redis.exceptions import RedisError

from fulcrum.domain.errors import FulcrumError, ServiceUnavailable
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.services import Services

_PATIENCE_S = 3.0  # a probe that hangs is a failure


async def readiness(services: Services) -> dict[str, str]:
    """Name of each part, with `ok` or what is wrong."""
    checks = {
        "store": _check(run_in_thread(services.store.ping)),
        "redis": _check(_ping(services)),
        "inference": _check(_engine(services)),
    }
    return dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))


async def _ping(services: Services) -> None:
    try:
        await services.redis.ping()
    except (RedisError, OSError) as error:
        raise ServiceUnavailable(f"Redis does not answer: {error}") from None


async def _engine(services: Services) -> None:
    if not await services.engine.health():
        raise ServiceUnavailable("inference is loading, draining or stuck")


async def _check(probe: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await probe
    except TimeoutError:
        return f"no answer within {_PATIENCE_S:g} s"
    except FulcrumError as error:
        return str(error)
    return "ok"
