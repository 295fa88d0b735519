"""Answers that come one after the other."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Generic, Self, TypeVar

from fulcrum.client.steps import Running

T = TypeVar("T")
R = TypeVar("R")


class Stream(Generic[T, R]):
    """Answers as they are found; `result()` waits for the rest and returns the whole.

    Close it (or use `with`) when you stop early: the service then stops computing.
    """

    def __init__(self, running: Running[R], items: Generator[T, None, None]) -> None:
        self._running = running
        self._items = items

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def result(self) -> R:
        """Reads what is left and returns the whole answer."""
        for _ in self._items:
            pass
        return self._running.value

    def close(self) -> None:
        """Stops early."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(Generic[T, R]):
    """`Stream` for `async for`; `await result()`, `async with`."""

    def __init__(self, running: Running[R], items: AsyncGenerator[T, None]) -> None:
        self._running = running
        self._items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def result(self) -> R:
        """Reads what is left and returns the whole answer."""
        async for _ in self._items:
            pass
        return self._running.value

    async def aclose(self) -> None:
        """Stops early."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
