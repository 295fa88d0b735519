"""Work whose asker went away is dropped."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from fulcrum.domain.errors import Cancelled

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Result of `work`, which is cancelled when the connection is closed. Raises Cancelled then.

    For requests whose body was read: after it nothing but the end of the connection can be received.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    # Nobody else asks how it ended, and asyncio would log an error of it.
    gone.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the caller went away before the answer was there")
        return task.result()
    finally:
        gone.cancel()  # ends by itself, while the answer is being sent
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
