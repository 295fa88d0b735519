"""Pages of other origins: closed unless an administrator names them."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from fulcrum import telemetry
from fulcrum.domain.errors import Forbidden
from fulcrum.gateway.errors import problem_response

_EXPOSED = (
    "ETag",
    "Retry-After",
    "X-Request-Id",
    "Idempotency-Replayed",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
_ALLOWED = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "X-Fulcrum-Request",
    "X-Request-Id",
)


class NamedOrigins(CORSMiddleware):
    """Starlette's CORS, which answers a refused preflight in the one shape of failures."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_ALLOWED,
            expose_headers=_EXPOSED,
            allow_credentials=True,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Allowed or not, before the browser sends the request itself."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        origin = request_headers["origin"][:200]
        refused = Forbidden(f"pages of {origin} may not ask this here: {bytes(response.body).decode()}")
        return problem_response(refused, telemetry.request_id.get() or "")
