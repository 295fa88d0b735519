"""How often somebody may ask, counted in Redis so that all gateways count together.

The generic cell rate algorithm: one time stamp per asker says when their allowance will be whole again. A request
moves it by one interval; it is refused while it lies further ahead than the burst allows. Bursts pass, the mean rate
holds, and no window has an edge at which twice the rate gets through.
"""

import asyncio
import hashlib
import math
import time
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from fulcrum.domain.errors import RateLimited, ServiceUnavailable
from fulcrum.store.people import name_key
from fulcrum.telemetry import logger

# Redis's own clock: gateways need not agree on the time.
_SCRIPT = """
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local whole_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local ahead = whole_at + interval - now
local room = burst * interval
if ahead > room then
  return {0, 0, ahead - room, whole_at - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', whole_at + interval), 'PX', math.ceil(ahead / 1000) + 1000)
return {1, math.floor((room - ahead) / interval), 0, ahead}
"""

_KNOWN_S = 1.0  # how long what was left says something: other gateways count too
_UNCOUNTED = 8  # requests of one user that may run before they are counted

log = logger(__name__)


@dataclass(frozen=True)
class Allowance:
    """What is left. `reset_s` is the time until everything is allowed again."""

    limit: int
    remaining: int
    retry_after_s: float | None
    reset_s: float

    @property
    def headers(self) -> dict[str, str]:
        """As a caller sees it (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(max(0, round(self.reset_s))),
        }


async def take(redis: Redis, key: str, per_minute: int, burst: int) -> Allowance:
    """Takes one request from an allowance. Raises redis' errors."""
    interval_us = 60_000_000 / per_minute
    allowed, remaining, wait_us, reset_us = await redis.eval(
        _SCRIPT, 1, f"fulcrum:rate:{key}", str(interval_us), str(burst)
    )
    return Allowance(burst, int(remaining), None if allowed else wait_us / 1e6, reset_us / 1e6)


async def take_request(redis: Redis, user_id: str, per_minute: int, burst: int) -> Allowance | None:
    """One request of a user. Raises RateLimited; None where Redis is away: then work goes on uncounted."""
    try:
        allowance = await take(redis, f"user:{user_id}", per_minute, burst)
    except RedisError as error:
        log.warning("requests are not counted: redis is away", error=str(error))
        return None
    if allowance.retry_after_s is not None:
        raise RateLimited(
            f"more than {per_minute} requests per minute (and {burst} at once): wait {allowance.retry_after_s:.1f} s",
            allowance.retry_after_s,
        )
    return allowance


class Requests:
    """Counts requests of users. Whoever was far from the limit a moment ago is let in while Redis counts.

    What is being counted is taken off what was left, so that one gateway lets in no more than is allowed; each other
    one at the same moment at most `_UNCOUNTED` more.
    """

    def __init__(self) -> None:
        self._left: dict[str, _Left] = {}  # by user

    async def take(
        self, redis: Redis, user_id: str, per_minute: int, burst: int
    ) -> "asyncio.Future[Allowance | None]":
        """What will be left, None where Redis is away. Raises RateLimited, as may what is returned."""
        left = self._left.setdefault(user_id, _Left())
        counting = asyncio.ensure_future(take_request(redis, user_id, per_minute, burst))
        counting.add_done_callback(left.counted)
        left.uncounted += 1
        known = time.monotonic() - left.looked_at < _KNOWN_S and left.uncounted <= _UNCOUNTED
        if not known or left.remaining - left.uncounted < burst / 2:
            await counting
        return counting


@dataclass
class _Left:
    remaining: int = 0  # when last looked at
    looked_at: float = -math.inf  # time.monotonic()
    uncounted: int = 0

    def counted(self, counting: "asyncio.Future[Allowance | None]") -> None:
        self.uncounted -= 1
        failed = counting.cancelled() or counting.exception() is not None
        allowance = None if failed else counting.result()
        self.remaining = 0 if allowance is None else allowance.remaining
        self.looked_at = time.monotonic()


async def take_login(redis: Redis, address: str, name: str | None, per_minute: int) -> None:
    """One attempt to log in, from an address and for a name. Raises RateLimited.

    Raises ServiceUnavailable where Redis is away: passwords must not be guessed uncounted.
    """
    keys = [f"login:address:{address}"]
    if name is not None:
        # As the store compares names: other spellings of one name must not be further attempts.
        written = name_key(name).encode("utf-8", "surrogatepass")
        keys.append(f"login:name:{hashlib.sha256(written).hexdigest()}")
    await _take_attempt(redis, keys, per_minute, "log in")


async def take_password_check(redis: Redis, user_id: str, per_minute: int) -> None:
    """One attempt at one's own password, for changing it: who stole a session must not find it out that way.

    Raises RateLimited, and ServiceUnavailable where Redis is away.
    """
    await _take_attempt(redis, [f"password:user:{user_id}"], per_minute, "change the password")


async def _take_attempt(redis: Redis, keys: list[str], per_minute: int, what: str) -> None:
    try:
        allowances = [await take(redis, key, per_minute, per_minute) for key in keys]
    except RedisError as error:
        log.error("passwords are refused: redis is away", error=str(error))
        raise ServiceUnavailable(f"nobody can {what} at the moment: Redis is not reachable", 5.0) from None
    waits = [a.retry_after_s for a in allowances if a.retry_after_s is not None]
    if waits:
        raise RateLimited(
            f"more than {per_minute} attempts to {what} per minute: wait {max(waits):.1f} s", max(waits)
        )
