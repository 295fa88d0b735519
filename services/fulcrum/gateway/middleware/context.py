"""The outermost layer: request ids, the access log, figures, traces and security headers."""

import re
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulcrum import telemetry
from fulcrum.domain.identifiers import new_id
from fulcrum.gateway import figures

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # what may stand in a log line and a header unchanged

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Pages bring a policy of their own; nothing else here is meant to be rendered.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}

_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = telemetry.logger(__name__)
_tracer = telemetry.tracer(__name__)


class RequestContext:
    """Gives each request an id (the caller's, where it is well-formed), and says afterwards how it went."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection of the ASGI server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ACCEPTED_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        mark = telemetry.request_id.set(request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _protected(message["headers"], request_id)
            await send(message)

        figures.RUNNING.inc()
        try:
            with (
                telemetry.incoming_trace(_trace_headers(scope)),
                _tracer.start_as_current_span(scope["method"]) as span,
            ):
                await self._app(scope, receive, send_with_headers)
                span.set_attribute("http.route", _route(scope))
        finally:
            figures.RUNNING.dec()
            _observe(scope, status, time.perf_counter() - started)
            telemetry.request_id.reset(mark)


def _protected(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """`headers` with the id, and with those that protect where the route has none of its own."""
    kept = [h for h in headers if h[0] != b"x-request-id"]
    own = {name for name, _ in kept}
    return [*kept, (b"x-request-id", request_id.encode()), *(h for h in _RAW_HEADERS if h[0] not in own)]


def _trace_headers(scope: Scope) -> dict[str, str]:
    headers = Headers(scope=scope)
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}


def _route(scope: Scope) -> str:
    # Not the path: one line of figures for each endpoint, whatever ids and nonsense are asked for.
    return getattr(scope.get("route"), "path", "none")


def _observe(scope: Scope, status: int, seconds: float) -> None:
    route = _route(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    figures.REQUESTS.labels(method, route, str(status)).inc()
    figures.DURATION.labels(method, route).observe(seconds)
    asker = scope["state"].get("asker")
    log.info(
        "request",
        method=method,
        path=scope["path"],  # without the query: it may hold a login link
        status=status,
        duration_ms=round(1000 * seconds, 2),
        user_id=None if asker is None else asker.user.id,
    )
