"""Cursors: opaque positions in a list."""

import base64
import binascii
import json
from typing import Any

from fulcrum.domain.errors import InvalidRequest
from fulcrum.store.columns import checked

MAX_LIMIT = 1000  # items of one page


def to_cursor(*position: Any) -> str:
    """An opaque text for a position in a list."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def from_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Inverse of `to_cursor`. Raises InvalidRequest for a text that it did not make."""
    try:
        position = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
        if not isinstance(position, list) or [type(p) for p in position] != list(kinds):
            raise ValueError(position)
        for item in position:
            checked("cursor", item)
    except (ValueError, binascii.Error, InvalidRequest, RecursionError):
        raise InvalidRequest(
            f"cursor is {cursor[:80]!r}: expected the next_cursor of the page before, or nothing"
        ) from None
    return tuple(position)


def checked_limit(limit: int) -> int:
    """`limit`. Raises InvalidRequest outside 1 .. MAX_LIMIT."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit is {limit}: expected 1 to {MAX_LIMIT}")
    return limit
