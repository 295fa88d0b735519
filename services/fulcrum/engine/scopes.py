"""Who asks, until when, and what the answer cost: what a request carries through the engine."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from fulcrum.domain.errors import Cancelled, DeadlineExceeded


class Cancellation:
    """Set once by whoever sees the caller go away; wakes every thread of the request that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        """Cancels. Safe from any thread, an event loop's included, and more than once."""
        with self._lock:
            self._set = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def is_set(self) -> bool:
        """Whether the caller went away."""
        return self._set

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` once when (or if already) set; what is returned ends that."""
        with self._lock:
            if not self._set:
                self._listeners.append(listener)
                return lambda: self._forget(listener)
        listener()
        return lambda: None

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


class Figures:
    """What a request cost so far. `batch_size` counts all rows of the largest forward that it rode in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._ended: float | None = None
        self._queue_s = 0.0
        self.batch_size = 0
        self.prefix_cached = False

    @property
    def queue_ms(self) -> float:
        """Waiting for the device, summed over the forwards of the request."""
        return 1e3 * self._queue_s

    @property
    def compute_ms(self) -> float:
        """Inside the scope without that waiting."""
        ended = time.perf_counter() if self._ended is None else self._ended
        return 1e3 * max(0.0, ended - self._began - self._queue_s)

    def waited(self, queue_s: float, batch_size: int) -> None:
        """One forward more."""
        with self._lock:
            self._queue_s += queue_s
            self.batch_size = max(self.batch_size, batch_size)

    def end(self) -> None:
        """Stops the clock."""
        self._ended = time.perf_counter()


@dataclass(frozen=True)
class RequestScope:
    """`deadline` is an instant of `time.monotonic()`."""

    user: str = ""
    deterministic: bool = False
    deadline: float | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    figures: Figures = field(default_factory=Figures)
    # Called when the scope ends: a model that is in use is released here.
    releases: list[Callable[[], None]] = field(default_factory=list)
    in_use: set[object] = field(default_factory=set)

    def hold(self, thing: object) -> bool:
        """Whether the request did not hold it yet; it does now, until the scope ends."""
        if thing in self.in_use:
            return False
        self.in_use.add(thing)
        return True

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the deadline, possibly negative; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when nobody waits for the answer any more."""
        if self.cancellation.is_set():
            raise Cancelled("the caller went away, and the work was dropped")
        remaining = self.remaining_s
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded(
                "the deadline of the request passed before its answer was ready", retry_after_s=1.0
            )

    def wait(self, event: threading.Event) -> None:
        """Until `event`, which belongs to this thread alone, is set. Raises as `check` when that is too late."""
        forget = self.cancellation.listen(event.set)
        try:
            remaining = self.remaining_s
            if (
                not event.wait(None if remaining is None else max(0.0, remaining))
                or self.cancellation.is_set()
            ):
                self.check()
        finally:
            forget()


_current: ContextVar[RequestScope | None] = ContextVar("fulcrum_request_scope", default=None)


@contextmanager
def request_scope(
    user: str = "",
    *,
    deterministic: bool = False,
    timeout_s: float | None = None,
    cancellation: Cancellation | None = None,
) -> Iterator[Figures]:
    """Everything that this thread asks of an engine inside belongs to `user`, and must end in `timeout_s`.

    `deterministic`: the same bits alone or beside other requests. Yields the figures for the provenance, which
    are complete when the scope ends. Enter it in the thread that calls the engine.
    """
    scope = RequestScope(
        user,
        deterministic,
        None if timeout_s is None else time.monotonic() + timeout_s,
        cancellation or Cancellation(),
    )
    token = _current.set(scope)
    try:
        yield scope.figures
    finally:
        _current.reset(token)
        scope.figures.end()
        for release in reversed(scope.releases):
            release()


def active_scope() -> RequestScope | None:
    """The scope of this thread's request, if it entered one."""
    return _current.get()


def current_scope() -> RequestScope:
    """The scope of this thread's request; outside of any, one that nobody cancels and that counts for nobody."""
    return _current.get() or RequestScope()


@contextmanager
def in_scope(scope: RequestScope) -> Iterator[None]:
    """Another thread works for a request that entered its scope elsewhere."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def deterministically() -> Iterator[None]:
    """What is kept for everyone (class embeddings) must not depend on who else was there when it was made."""
    token = _current.set(replace(current_scope(), deterministic=True))
    try:
        yield
    finally:
        _current.reset(token)
