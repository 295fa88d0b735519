"""Nothing under /v1 is reached by a stranger: routes are closed by default and the open ones are written out here."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulcrum.domain.errors import Forbidden, RateLimited
from fulcrum.gateway.auth.identify import SESSION_COOKIE, identify
from fulcrum.gateway.rate_limits import Allowance, Requests
from fulcrum.gateway.services import Services

OPEN: frozenset[tuple[str, str]] = frozenset({("POST", "/v1/auth/login"), ("POST", "/v1/auth/links:redeem")})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# What the guard takes, for the description of the API. Not among the dependencies that are solved with every request:
# they would find out nothing.
SCHEMES = [
    Depends(HTTPBearer(auto_error=False, scheme_name="token", bearerFormat="fct_...")),
    Depends(APIKeyCookie(name=SESSION_COOKIE, auto_error=False, scheme_name="session")),
]


def is_guarded(method: str, path: str) -> bool:
    """Whether a stranger is turned away there."""
    return (path + "/").startswith("/v1/") and (method, path) not in OPEN


class Guard:
    """Finds out who asks and whether they may ask more, before a body is read; `request.state.asker` tells."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = Requests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises Unauthenticated, Forbidden, RateLimited."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        settings = services.settings
        headers = Headers(scope=scope)
        if not is_guarded(scope["method"], scope["path"]):
            if (scope["method"], scope["path"]) in OPEN:
                check_no_foreign_page(headers, settings.public_url, scope["scheme"])
            await self._app(scope, receive, send)
            return
        asker = await identify(services.store, headers)
        scope["state"]["asker"] = asker
        if asker.login_id is not None and scope["method"] not in SAFE_METHODS:
            check_own_page(headers, settings.public_url, scope["scheme"])
        allowance = await self._requests.take(
            services.redis, asker.user.id, settings.requests_per_minute, settings.request_burst
        )
        await self._app(scope, receive, _telling(allowance, send))


def check_own_page(headers: Headers, public_url: str | None, scheme: str) -> None:
    """Raises Forbidden unless our own page or a program sent this.

    A foreign page can make a browser send the cookie along, but neither this header nor our Origin.
    """
    if headers.get("x-fulcrum-request") != "1" and not _is_own_origin(headers, public_url, scheme):
        raise Forbidden(
            f"the request came with a cookie from {headers.get('origin', 'an unknown page')[:200]}: "
            "send the header `X-Fulcrum-Request: 1`, or use an API token"
        )


def check_no_foreign_page(headers: Headers, public_url: str | None, scheme: str) -> None:
    """Raises Forbidden for a page of another origin; for what needs no cookie, as logging in.

    Otherwise such a page could log its visitor in as somebody else, and read what they upload.
    """
    if "origin" in headers and not _is_own_origin(headers, public_url, scheme):
        raise Forbidden(f"a page of {headers['origin'][:200]} cannot log in here")


def _is_own_origin(headers: Headers, public_url: str | None, scheme: str) -> bool:
    own = {f"{scheme}://{headers.get('host', '')}"}
    if public_url is not None:
        parts = urlsplit(public_url)
        own.add(f"{parts.scheme}://{parts.netloc}")
    return headers.get("origin") in own


def _telling(counting: "asyncio.Future[Allowance | None]", send: Send) -> Send:
    async def send_with_allowance(message: Message) -> None:
        if message["type"] == "http.response.start":
            # By what other gateways let in meanwhile; this request has been answered.
            with suppress(RateLimited):
                allowance = await counting
                if allowance is not None:
                    MutableHeaders(scope=message).update(allowance.headers)
        await send(message)

    return send_with_allowance
