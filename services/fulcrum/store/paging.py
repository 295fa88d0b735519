"""Cursors: opaque positions in a list."""

import base64
import json
from typing import Any

from fulcrum.domain.errors import InvalidRequest
from fulcrum.store.columns import checked

MAX_LIMIT = 1000  # items of one page


def to_cursor(word: str, *position: Any) -> str:
    """An opaque text for a position in the list of things called `word`."""
    return base64.urlsafe_b64encode(json.dumps([word, *position]).encode()).decode().rstrip("=")


def from_cursor(cursor: str, word: str, *kinds: type) -> tuple[Any, ...]:
    """Inverse of `to_cursor`. Raises InvalidRequest for a text that it did not make for this kind of list."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if (
            not isinstance(content, list)
            or content[:1] != [word]
            or [type(p) for p in content[1:]] != list(kinds)
        ):
            raise ValueError(content)
        for item in content:
            checked("cursor", item)
    except (ValueError, InvalidRequest, RecursionError):
        raise InvalidRequest(
            f"cursor is {cursor[:80]!r}: expected the next_cursor of the page before, or nothing"
        ) from None
    return tuple(content[1:])


def checked_limit(limit: int) -> int:
    """`limit`. Raises InvalidRequest outside 1 .. MAX_LIMIT."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit is {limit}: expected 1 to {MAX_LIMIT}")
    return limit
