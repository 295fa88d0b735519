"""Every failure leaves in one shape: `application/problem+json`, with the stable `reason` of the domain's error.

    {"type", "title", "status", "detail", "reason", "request_id", "errors"?}

`errors` lists the fields of a body or query that could not be read: `{"field", "message"}` each.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fulcrum.domain import errors
from fulcrum.gateway.figures import FAILURES
from fulcrum.gateway.pages import html
from fulcrum.telemetry import logger

MEDIA_TYPE = "application/problem+json"

# Looked up along the ancestors of a class, nearest first: a new leaf is answered like its family.
STATUS: Mapping[type[errors.FulcrumError], int] = {
    errors.FulcrumError: 500,
    errors.InvalidInput: 422,
    errors.ImageTooLarge: 413,
    errors.PayloadTooLarge: 413,
    errors.NotFound: 404,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ReviewerIsAuthor: 403,
    errors.Conflict: 409,
    errors.StaleVersion: 412,
    errors.MissingPrecondition: 428,
    errors.Unavailable: 503,
    errors.RateLimited: 429,
    errors.DeadlineExceeded: 504,
    errors.Cancelled: 499,
    errors.CorruptFile: 500,
    errors.CorruptCheckpoint: 422,  # of an upload; what we wrote ourselves is checked when it is written
    errors.MissingDependency: 500,
    errors.TooManyAttempts: 500,
    errors.ComputationFailed: 500,
    errors.InternalError: 500,
}

TITLE: Mapping[int, str] = {
    401: "Log in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "In conflict with the present state",
    412: "Changed in the meantime",
    413: "Too large",
    415: "Media type not supported",
    422: "The request cannot be meant",
    428: "If-Match is missing",
    429: "Too many requests",
    499: "The caller went away",
    500: "An error of ours",
    503: "Not available at the moment",
    504: "No answer in time",
}

log = logger(__name__)


class FieldProblem(BaseModel):
    """One field that could not be read."""

    field: str = Field(description="Where it stands, such as `body.task.names`.")
    message: str


class Problem(BaseModel):
    """The body of every failure (RFC 9457)."""

    type: str = Field(description="`urn:fulcrum:error:REASON`.")
    title: str
    status: int
    detail: str = Field(description="What was wrong, the value received and what is allowed.")
    reason: str = Field(description="Stable name of the kind of failure, such as `UNKNOWN_IMAGE`.")
    request_id: str = Field(description="Stands in the logs, too.")
    errors: list[FieldProblem] | None = None


_REFERENCE = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

# For `responses=` of the application: what OpenAPI says about every endpoint's failures.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The caller can act on it.", "content": _REFERENCE},
    "5XX": {"description": "The platform failed.", "content": _REFERENCE},
}


def problem_schemas() -> dict[str, Any]:
    """OpenAPI's components that `PROBLEM_RESPONSES` refers to."""
    kinds: list[tuple[type[BaseModel], Literal["serialization"]]] = [
        (Problem, "serialization"),
        (FieldProblem, "serialization"),
    ]
    _, described = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    found: dict[str, Any] = described["$defs"]
    return found


def status_of(error: errors.FulcrumError) -> int:
    """HTTP status of a domain error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(
    error: errors.FulcrumError,
    request_id: str,
    status: int | None = None,
    fields: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """The JSON object of a failure; also the data of an `error` event in a stream."""
    status = status or status_of(error)
    content: dict[str, Any] = {
        "type": f"urn:fulcrum:error:{error.reason}",
        "title": TITLE.get(status, "The request failed"),
        "status": status,
        "detail": str(error),
        "reason": error.reason,
        "request_id": request_id,
    }
    if fields:
        content["errors"] = fields
    return content


def problem_response(
    error: errors.FulcrumError,
    request_id: str,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    fields: list[dict[str, str]] | None = None,
) -> Response:
    """The whole answer, with Retry-After and WWW-Authenticate where they belong."""
    status = status or status_of(error)
    FAILURES.labels(error.reason).inc()
    sent = dict(headers or {})
    if error.retry_after_s is not None:
        sent["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem(error, request_id, status, fields), status, sent, media_type=MEDIA_TYPE)


def failure_response(
    scope: Mapping[str, Any],
    error: errors.FulcrumError,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    fields: list[dict[str, str]] | None = None,
) -> Response:
    """`problem_response`; a page where a person's browser asks for one. The API answers everybody alike."""
    request_id = request_id_of(scope)
    answer = problem_response(error, request_id, status, headers, fields)
    if scope["path"].startswith("/v1/") or "text/html" not in Headers(scope=dict(scope)).get("accept", ""):
        return answer
    status = answer.status_code
    page = html.failure(status, TITLE.get(status, "The request failed"), str(error), request_id)
    kept = {name: value for name, value in answer.headers.items() if name in ("retry-after", "allow")}
    return HTMLResponse(page, status, {**html.headers(), **kept})


def request_id_of(scope: Mapping[str, Any]) -> str:
    """Id of the request that an ASGI scope belongs to."""
    found = scope.get("state", {}).get("request_id", "")
    return str(found)


def unexpected(error: BaseException, request_id: str) -> errors.InternalError:
    """What the caller hears about a bug; the log gets the traceback."""
    log.error("unhandled", request_id=request_id, exc_info=error)
    return errors.InternalError(f"something went wrong on our side; the logs know it as request {request_id}")


def as_domain_error(error: BaseException, request_id: str) -> errors.FulcrumError:
    """Any exception of a handler as an error that may be shown."""
    for cause in _causes(error):
        if isinstance(cause, errors.FulcrumError):
            return cause
        if isinstance(cause, ClientDisconnect):
            return errors.Cancelled("the caller went away before the request was read")
    return unexpected(error, request_id)


def add_error_handlers(app: FastAPI) -> None:
    """Registers the one shape for all that FastAPI and Starlette raise by themselves."""
    app.add_exception_handler(errors.FulcrumError, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(ClientDisconnect, _answer)
    app.add_exception_handler(HTTPException, _answer_http)


async def _answer(request: Request, error: Exception) -> Response:
    return failure_response(request.scope, as_domain_error(error, request_id_of(request.scope)))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id = request_id_of(request.scope)
    for cause in _causes(error):
        if isinstance(cause, errors.FulcrumError | ClientDisconnect):
            return failure_response(request.scope, as_domain_error(cause, request_id))
    shown: errors.FulcrumError
    status = error.status_code
    match status:
        case (
            400
        ):  # how FastAPI and Starlette answer a body that they cannot parse; ours is 422 like all of them
            shown, status = errors.InvalidRequest(_unreadable(error)), 422
        case 404:
            shown = errors.NotFound(f"there is nothing at {request.url.path}")
        case 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            shown = errors.InvalidRequest(f"{request.method} is not possible here: use {allowed}")
        case 401:
            shown = errors.Unauthenticated(str(error.detail))
        case 403:
            shown = errors.Forbidden(str(error.detail))
        case _ if 400 <= status < 500:
            shown = errors.InvalidRequest(str(error.detail))
        case _:
            shown = unexpected(error, request_id)
    return failure_response(request.scope, shown, status, error.headers)


def _causes(error: BaseException) -> Iterable[BaseException]:
    # Not __context__: a bug in an `except UnknownUser` would pass for an unknown user.
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _unreadable(error: HTTPException) -> str:
    match error.__cause__:
        case UnicodeDecodeError():
            return "the body cannot be read: it is not UTF-8"
        case RecursionError():
            return "the body cannot be read: it is nested too deeply"
        case ValueError():  # json's, of a number with thousands of digits
            return "the body cannot be read: it holds a number that is too long"
        case _:
            return f"the body cannot be read: {error.detail}"


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = []
    for item in error.errors():
        message = str(item["msg"])
        if item["type"] == "json_invalid":
            message = f"not JSON: {item.get('ctx', {}).get('error', message)}"
        fields.append({"field": ".".join(str(part) for part in item["loc"]), "message": message})
    first = fields[0] if fields else {"field": "request", "message": "it cannot be read"}
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    shown = errors.InvalidRequest(f"{first['field']}: {first['message']}{more}")
    return failure_response(request.scope, shown, fields=fields)
