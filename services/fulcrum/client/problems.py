"""Failing answers as the errors that the service raised: the same classes on both sides of HTTP."""

from collections.abc import Mapping
from typing import Any

from fulcrum.client.steps import Response
from fulcrum.domain import errors
from fulcrum.domain.errors import FulcrumError, Unavailable

BY_REASON: Mapping[str, type[FulcrumError]] = errors.by_reason()

# For answers without a reason that we know: another version of the platform, or a proxy in front of it.
BY_STATUS: Mapping[int, type[FulcrumError]] = {
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.StaleVersion,
    413: errors.PayloadTooLarge,
    428: errors.MissingPrecondition,
    429: errors.RateLimited,
    499: errors.Cancelled,
    502: errors.ServiceUnavailable,
    503: errors.ServiceUnavailable,
    504: errors.DeadlineExceeded,
}


def error_of(response: Response) -> FulcrumError:
    """The error of an answer with status >= 400 (or a redirect, which the API never sends)."""
    content: Any = None
    if response.media_type in ("application/problem+json", "application/json"):
        try:
            content = response.json()
        except ValueError:
            content = None
    if isinstance(content, dict) and "reason" in content:
        return error_of_problem(content, response.status, _retry_after_s(response))
    what = response.media_type or "an empty answer"
    message = (
        f"HTTP {response.status} with {what}, not an answer of Fulcrum: is there a proxy, or another server?"
    )
    return _make(_kind(None, response.status), message, _retry_after_s(response))


def error_of_problem(
    content: Mapping[str, Any], status: int | None = None, retry_after_s: float | None = None
) -> FulcrumError:
    """The error of a problem object: the body of an answer, or the data of an `error` event in a stream."""
    status = status or int(content.get("status", 500))
    error = _make(_kind(content.get("reason"), status), str(content.get("detail", "")), retry_after_s)
    for item in content.get("errors") or ():
        error.add_note(f"{item.get('field')}: {item.get('message')}")
    if content.get("request_id"):
        error.add_note(f"request {content['request_id']}")
    return error


def _kind(reason: Any, status: int) -> type[FulcrumError]:
    if reason in BY_REASON:
        return BY_REASON[reason]
    if status in BY_STATUS:
        return BY_STATUS[status]
    return errors.InvalidRequest if 400 <= status < 500 else errors.InternalError


def _make(kind: type[FulcrumError], message: str, retry_after_s: float | None) -> FulcrumError:
    if issubclass(kind, Unavailable):
        return kind(message, retry_after_s)
    return kind(message)


def _retry_after_s(response: Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:  # absent, or a date, which the platform never sends
        return None
    return seconds if 0 <= seconds < float("inf") else None
