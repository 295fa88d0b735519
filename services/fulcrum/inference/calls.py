"""One call at work: its thread, its deadline, its cancellation, and the room it takes."""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fulcrum.domain.errors import Overloaded, ServiceUnavailable
from fulcrum.engine.cores import compute_on_one_core
from fulcrum.engine.scopes import Cancellation, Figures, request_scope

T = TypeVar("T")

_RETRY_AFTER_S = 0.5
_RETRY_WHEN_STOPPING_S = 1.0


@dataclass(eq=False)
class Call:
    """What is known about the call that is being answered."""

    method: str
    user: str
    deadline: float  # time.monotonic()
    cancel: Cancellation = field(default_factory=Cancellation)
    threads: set["Future[Any]"] = field(default_factory=set)
    task: "asyncio.Task[Any] | None" = field(default_factory=asyncio.current_task)
    given_up: bool = False  # by the service, which has to stop
    queue_ms: float = 0.0
    batch_size: int = 0

    @contextmanager
    def scope(self, deterministic: bool) -> Iterator[Figures]:
        """Engine work inside is done for this call's user, within its deadline, and stops when it is cancelled."""
        left_s = self.deadline - time.monotonic()
        with request_scope(
            self.user, deterministic=deterministic, timeout_s=left_s, cancellation=self.cancel
        ) as figures:
            try:
                yield figures
            finally:
                self.queue_ms += figures.queue_ms
                self.batch_size = max(self.batch_size, figures.batch_size)


current_call: ContextVar[Call] = ContextVar("fulcrum_inference_call")
"""Set by the border before the servicer runs."""


class Workers:
    """Threads for the calls in work, one each, and the bound on how many there are.

    A caller who went away frees its place only when its thread has noticed: otherwise a wave of client timeouts
    would fill all threads with work that nobody waits for, while new calls are let in to wait behind it.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._calls: set[Call] = set()
        self._pool = ThreadPoolExecutor(max_calls, "call", compute_on_one_core)
        self.stopping = asyncio.Event()

    @property
    def n_calls(self) -> int:
        """Calls in work."""
        return len(self._calls)

    def check_room(self) -> None:
        """Raises ServiceUnavailable when the service is stopping, Overloaded when all places are taken."""
        if self.stopping.is_set():
            raise stopping_error()
        if len(self._calls) >= self._max_calls:
            raise Overloaded(
                f"{len(self._calls)} calls are in work, {self._max_calls} are allowed", _RETRY_AFTER_S
            )

    def enter(self, call: Call) -> None:
        """Takes a place. Raises as `check_room`."""
        self.check_room()
        self._calls.add(call)

    def leave(self, call: Call) -> None:
        """The call was answered or given up; its place is free once its threads are."""
        call.cancel.set()
        running = [thread for thread in call.threads if not thread.done()]
        if not running:
            self._calls.discard(call)
            return
        loop = asyncio.get_running_loop()
        for thread in running:
            thread.add_done_callback(lambda _: _soon(loop, self._discard_if_done, call))

    def _discard_if_done(self, call: Call) -> None:
        if all(thread.done() for thread in call.threads):
            self._calls.discard(call)

    async def run(self, call: Call, work: Callable[[], T]) -> T:
        """What `work` returns, from a thread that sees this task's context variables."""
        thread: Future[T] = self._pool.submit(contextvars.copy_context().run, _tamed, work)
        call.threads.add(thread)
        try:
            return await asyncio.wrap_future(thread)
        except asyncio.CancelledError:
            call.cancel.set()
            raise
        finally:
            if thread.done():
                call.threads.discard(thread)

    async def stream(self, call: Call, work: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        """The items of an iterator that runs in a thread, as they come."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

        def pump() -> None:
            try:
                for item in work():
                    _soon(loop, items.put_nowait, (item,))
                    if call.cancel.is_set():
                        return
            finally:
                _soon(loop, items.put_nowait, None)

        running = asyncio.ensure_future(self.run(call, pump))
        try:
            while (item := await items.get()) is not None:
                yield item[0]
            await running
        finally:
            if not running.done():
                call.cancel.set()
                running.cancel()
            with suppress(
                asyncio.CancelledError, Exception
            ):  # raised above already, or nobody listens any more
                await running

    def give_up(self) -> None:
        """Every caller is told that the service stops, and every thread to stop at its next step."""
        for call in self._calls:
            call.given_up = True
            call.cancel.set()
            if call.task is not None:
                call.task.cancel()

    async def drained(self, timeout_s: float) -> bool:
        """Waits until no call is in work; False when some still are after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while self._calls and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return not self._calls

    def close(self) -> None:
        """No new work; threads that still run are left to end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _tamed(work: Callable[[], T]) -> T:
    """What `work` returns. A panic of a library in Rust is no Exception, and would pass by everything that answers."""
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def stopping_error() -> ServiceUnavailable:
    """What a caller is told while the service drains."""
    return ServiceUnavailable("the service is stopping", _RETRY_WHEN_STOPPING_S)


def _soon(loop: asyncio.AbstractEventLoop, act: Callable[..., object], *arguments: object) -> None:
    """Like `call_soon_threadsafe`; a thread that outlives the loop has nobody left to tell."""
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(act, *arguments)
        except RuntimeError:  # closed between the two lines
            return
