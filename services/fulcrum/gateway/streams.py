"""Server-sent events: answers in parts, and failures in the one shape."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.sse import ServerSentEvent

from fulcrum.domain.codec import to_json
from fulcrum.gateway.errors import as_domain_error, problem


def event(name: str, value: Any) -> ServerSentEvent:
    """An event with a domain value or JSON as its data."""
    return ServerSentEvent(
        event=name, raw_data=json.dumps(to_json(value), separators=(",", ":"), allow_nan=False)
    )


async def with_errors(events: AsyncGenerator[ServerSentEvent], request_id: str) -> AsyncGenerator[Any]:
    """The events, then an `error` event if they fail: the status of the response was sent long before.

    Typed as Any because endpoints are annotated with what the events hold, for OpenAPI.
    """
    try:
        async with aclosing(events):
            async for item in events:
                yield item
    except Exception as error:
        yield event("error", problem(as_domain_error(error, request_id), request_id))
