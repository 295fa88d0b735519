"""What is loaded once, in the background, and kept under a budget of bytes as long as it fits or is in use."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fulcrum.domain.errors import InvalidSettings, OutOfMemory
from fulcrum.engine.device_memory import empty_cache, is_out_of_memory, out_of_memory
from fulcrum.engine.scopes import active_scope, current_scope

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# How long a finished load waits for a place that running requests hold.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class ResidentCounts:
    """What happened so far, and what is there."""

    loads: int
    evictions: int
    size_bytes: int
    n_entries: int
    n_loading: int
    n_in_use: int


class _Resident(Generic[V]):
    def __init__(self, value: V, size_bytes: int) -> None:
        self.value, self.size_bytes, self.n_users = value, size_bytes, 0


class _Load:
    def __init__(self) -> None:
        self.waiters: list[threading.Event] = []
        self.error: BaseException | None = None


class Residents(Generic[K, V]):
    """Thread-safe. What a request got inside its `request_scope` stays until that scope ends; then the one that was
    used longest ago makes room first. `budget_bytes` None: everything stays.
    """

    def __init__(self, budget_bytes: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        if budget_bytes is not None and budget_bytes < 0:
            raise InvalidSettings(f"a memory budget of {budget_bytes} bytes must be >= 0")
        self._budget, self._patience_s = budget_bytes, patience_s
        self._entries: OrderedDict[K, _Resident[V]] = OrderedDict()
        self._loading: dict[K, _Load] = {}
        self._released = threading.Condition()
        self._size = self._loads = self._evictions = 0

    def get(self, key: K, load: Callable[[], tuple[V, int]]) -> V:
        """The resident value, or what `load` returns with its size in bytes: once, in a thread of its own.

        Whoever asks meanwhile waits for the same load, which goes on when they go away. Its error reaches all of
        them and leaves nothing behind. Raises OutOfMemory for what does not fit, Cancelled, DeadlineExceeded.
        """
        current_scope().check()
        while True:
            with self._released:
                resident = self._entries.get(key)
                if resident is not None:
                    self._entries.move_to_end(key)
                    self._use(key, resident)
                    return resident.value
                loading = self._loading.get(key)
                if loading is None:
                    loading = self._loading[key] = _Load()
                    threading.Thread(
                        target=self._load, args=(key, load, loading), name="fulcrum-load", daemon=True
                    ).start()
                done = threading.Event()
                loading.waiters.append(done)
            current_scope().wait(done)
            if loading.error is not None:
                raise loading.error

    def values(self) -> list[V]:
        """What is there, the one used last at the end."""
        with self._released:
            return [resident.value for resident in self._entries.values()]

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        """Those of them that nobody uses go now."""
        with self._released:
            for key in [k for k, r in self._entries.items() if unwanted(k) and not r.n_users]:
                self._size -= self._entries.pop(key).size_bytes
                self._evictions += 1

    def loading(self) -> list[K]:
        """What is on its way."""
        with self._released:
            return list(self._loading)

    @property
    def counts(self) -> ResidentCounts:
        """A consistent snapshot."""
        with self._released:
            return ResidentCounts(
                self._loads,
                self._evictions,
                self._size,
                len(self._entries),
                len(self._loading),
                sum(resident.n_users > 0 for resident in self._entries.values()),
            )

    def _use(self, key: K, resident: _Resident[V]) -> None:
        """Held for the request of this thread, once, until it ends."""
        scope = active_scope()
        if scope is None or not scope.hold((id(self), key)):
            return
        resident.n_users += 1

        def release() -> None:
            with self._released:
                resident.n_users -= 1
                self._released.notify_all()

        scope.releases.append(release)

    # What follows runs in the thread of a load.

    def _load(self, key: K, load: Callable[[], tuple[V, int]], loading: _Load) -> None:
        try:
            value, size_bytes = self._loaded(load)
            self._settle(key, value, size_bytes)
        except BaseException as error:
            loading.error = error
        finally:
            with self._released:
                del self._loading[key]
                for done in loading.waiters:
                    done.set()

    def _loaded(self, load: Callable[[], tuple[V, int]]) -> tuple[V, int]:
        try:
            return load()
        except BaseException as error:
            if not is_out_of_memory(error):
                raise
        # Once more in the room of everything that nobody uses.
        with self._released:
            self._evict_down_to(0)
        empty_cache()
        try:
            return load()
        except BaseException as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, "also without what nobody uses") from None
            raise

    def _settle(self, key: K, value: V, size_bytes: int) -> None:
        with self._released:
            if self._budget is not None:
                self._make_room(size_bytes, self._budget)
            self._entries[key] = _Resident(value, size_bytes)
            self._size += size_bytes
            self._loads += 1

    def _make_room(self, size_bytes: int, budget: int) -> None:
        if size_bytes > budget:
            raise OutOfMemory(
                f"the model or SAE needs {size_bytes} bytes, and the whole budget for them is {budget}"
            )
        until = time.monotonic() + self._patience_s
        while not self._evict_down_to(budget - size_bytes):
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise OutOfMemory(
                    f"the model or SAE needs {size_bytes} bytes of a budget of {budget}, of which running requests "
                    f"hold {self._size}",
                    retry_after_s=self._patience_s,
                )
            self._released.wait(remaining)

    def _evict_down_to(self, size_bytes: int) -> bool:
        """Drops what nobody uses, longest unused first; whether that was enough."""
        for key in [key for key, resident in self._entries.items() if not resident.n_users]:
            if self._size <= size_bytes:
                break
            self._size -= self._entries.pop(key).size_bytes
            self._evictions += 1
        return self._size <= size_bytes
