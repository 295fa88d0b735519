"""A cache with a budget in bytes that drops what was used longest ago."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fulcrum.domain.errors import InvalidSettings
from fulcrum.engine.scopes import current_scope

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class CacheCounts:
    """What a cache did so far."""

    hits: int
    misses: int
    evictions: int
    size_bytes: int
    n_entries: int


class ByteLru(Generic[K, V]):
    """Thread-safe. A value that is larger than the whole budget is returned but never kept."""

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise InvalidSettings(f"cache budget of {budget_bytes} bytes must be >= 0")
        self._budget = budget_bytes
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()
        self._making: dict[K, list[threading.Event]] = {}  # who waits for the one who makes it

    def get_or_make(self, key: K, make: Callable[[], tuple[V, int]]) -> V:
        """The kept value, or what `make` returns with its size in bytes; two threads never make the same one.

        An error of `make` reaches the caller and leaves nothing behind; others who wait try for themselves.
        Raises Cancelled or DeadlineExceeded when the request that waits for another's `make` is over.
        """
        while True:
            with self._lock:
                if key in self._entries:
                    self._hits += 1
                    self._entries.move_to_end(key)
                    return self._entries[key][0]
                waiters = self._making.get(key)
                if waiters is None:
                    self._misses += 1
                    self._making[key] = []
                    break
                made = threading.Event()
                waiters.append(made)
            current_scope().wait(made)
        try:
            value, size_bytes = make()
            self._put(key, value, size_bytes)
        finally:
            with self._lock:
                waiters = self._making.pop(key)
            for made in waiters:
                made.set()
        return value

    def _put(self, key: K, value: V, size_bytes: int) -> None:
        with self._lock:
            if size_bytes > self._budget:
                return
            self._entries[key] = (value, size_bytes)
            self._size += size_bytes
            while self._size > self._budget:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._size -= dropped
                self._evictions += 1

    def values(self) -> list[V]:
        """What is kept, the one used last at the end."""
        with self._lock:
            return [value for value, _ in self._entries.values()]

    def clear(self) -> None:
        """Drops everything; the counts stay."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    @property
    def counts(self) -> CacheCounts:
        """A consistent snapshot."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._evictions, self._size, len(self._entries))
