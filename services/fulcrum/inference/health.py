"""Whether the service works: a forward that passes, and progress while work waits. Nothing else makes it green."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from fulcrum import telemetry
from fulcrum.domain.errors import Overloaded
from fulcrum.engine.cores import compute_on_one_core

_LOOKS_PER_STALL = 4

log = telemetry.logger(__name__)


class Health:
    """grpc.health.v1 for the names of `services`: NOT_SERVING until the first canary passed.

    The canary runs every `every_s`; between two of them the watchdog looks at queue and progress. A canary that is
    late while the device progresses says that the machine is busy, not that it is broken.
    """

    def __init__(
        self,
        services: tuple[str, ...],
        canary: Callable[[], None],
        *,
        stalled_s: Callable[[], float | None],
        every_s: float,
        timeout_s: float,
        stall_s: float,
    ) -> None:
        """`stalled_s`: for how long work waits and none gets done; None when no work waits."""
        self.servicer = HealthServicer()
        self._services = services
        self._canary = canary
        self._stalled = stalled_s
        self._every_s, self._timeout_s, self._stall_s = every_s, timeout_s, stall_s
        self._thread = ThreadPoolExecutor(1, "canary", compute_on_one_core)
        self._running: Future[BaseException | None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._canary_passed = False
        self.serving = False
        self.problem = "the first check has not passed yet"

    async def start(self) -> None:
        """Returns at once; the service turns green when it is."""
        for name in self._services:
            await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """NOT_SERVING for good."""
        self.serving, self.problem = False, "the service is stopping"
        await self.servicer.enter_graceful_shutdown()
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await self._guarded(self._check)
            # The next canary; until then the watchdog looks.
            while (left := began + self._every_s - time.monotonic()) > 0:
                await asyncio.sleep(min(left, self._stall_s / _LOOKS_PER_STALL))
                await self._guarded(self._tell)

    async def _guarded(self, look: Callable[[], Awaitable[None]]) -> None:
        """A look that fails by a fault of its own is no reason to stay green for ever."""
        try:
            await look()
        except Exception as error:
            self._canary_passed = self.serving = False
            self.problem = f"the check of health failed itself: {error!r}"
            log.exception("health check failed")
            for name in self._services:
                await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def _check(self) -> None:
        if self._running is None:
            self._running = self._thread.submit(self._outcome)
        try:
            # Not wait_for: in Python 3.11 it forgets a cancellation that comes with the result, and `stop` would hang.
            async with asyncio.timeout(self._timeout_s):
                failure = await asyncio.shield(asyncio.wrap_future(self._running))
        except TimeoutError:
            stalled_s = self._stalled()
            if stalled_s is None or stalled_s >= self._timeout_s:
                self._canary_passed = False
                self.problem = f"a canary forward did not end within {self._timeout_s:g} s"
        else:
            self._running = None
            if failure is None:
                self._canary_passed = True
            elif isinstance(failure, Overloaded):  # a full queue: the watchdog knows whether it moves
                log.info("canary refused", reason=failure.reason, error=str(failure))
            else:
                self._canary_passed = False
                self.problem = f"a canary forward failed: {failure}"
                log.error("canary failed", error=str(failure), exc_info=failure)
        await self._tell()

    def _outcome(self) -> BaseException | None:
        try:
            self._canary()
        except BaseException as error:  # a panic of a library in Rust is no Exception
            return error
        return None

    async def _tell(self) -> None:
        stalled_s = self._stalled() or 0.0
        stalled = stalled_s > self._stall_s
        if stalled:
            self.problem = f"work waits and nothing progressed for {stalled_s:.0f} s"
        serving = self._canary_passed and not stalled
        if serving != self.serving:
            self.serving = serving
            if serving:
                self.problem = ""
                log.info("healthy")
            else:
                log.error("not healthy", problem=self.problem)
        status = health_pb2.HealthCheckResponse
        for name in self._services:
            await self.servicer.set(name, status.SERVING if serving else status.NOT_SERVING)
