"""Nothing under /v1 is reached by a stranger: routes are closed by default and the open ones are written out here."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fulcrum.domain.errors import Forbidden
from fulcrum.gateway.auth.identify import identify
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.services import Services

OPEN: frozenset[tuple[str, str]] = frozenset({("POST", "/v1/auth/login"), ("POST", "/v1/auth/links:redeem")})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Finds out who asks, before a body is read, and leaves it in `request.state.asker`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises Unauthenticated, Forbidden."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        headers = Headers(scope=scope)
        if (scope["method"], scope["path"]) in OPEN:
            check_same_origin(headers, services.settings.public_url, scope["scheme"])
        else:
            asker = await run_in_thread(identify, services.store, headers)
            if asker.login_id is not None and scope["method"] not in SAFE_METHODS:
                check_same_origin(headers, services.settings.public_url, scope["scheme"])
            scope["state"]["asker"] = asker
        await self._app(scope, receive, send)


def check_same_origin(headers: Headers, public_url: str | None, scheme: str) -> None:
    """Raises Forbidden unless our own page or a program sent this.

    A foreign page can make a browser send the cookie along, but neither this header nor our Origin.
    """
    if headers.get("x-fulcrum-request") == "1":
        return
    origin = headers.get("origin")
    own = {f"{scheme}://{headers.get('host', '')}"}
    if public_url is not None:
        parts = urlsplit(public_url)
        own.add(f"{parts.scheme}://{parts.netloc}")
    if origin is None or origin not in own:
        raise Forbidden(
            f"the request came with a cookie from {origin or 'an unknown page'}: "
            "send the header `X-Fulcrum-Request: 1`, or use an API token"
        )
