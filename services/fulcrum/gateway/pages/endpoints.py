"""Landing, login and one's own account, for browsers. Everything else that people see is the frontend's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import TypeAdapter, ValidationError

from fulcrum.domain.errors import Denied, FulcrumError, NotFound, RateLimited, Unauthenticated
from fulcrum.domain.records import Project
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.auth import service as auth
from fulcrum.gateway.auth.endpoints import address_of, set_session_cookie
from fulcrum.gateway.auth.identify import SESSION_COOKIE, identify
from fulcrum.gateway.auth.schemas import NewPassword
from fulcrum.gateway.deps import ServicesDep, run_in_thread
from fulcrum.gateway.errors import status_of
from fulcrum.gateway.links import after_login, frontend_url
from fulcrum.gateway.middleware.guard import check_no_foreign_page, check_own_page
from fulcrum.gateway.pages import html
from fulcrum.gateway.rate_limits import take_login, take_password_check, take_request
from fulcrum.gateway.services import Services
from fulcrum.gateway.status.service import readiness
from fulcrum.gateway.tokens import service as tokens

router = APIRouter(include_in_schema=False)

_STATIC = Path(__file__).parent / "static"
_LONGEST_URL = 4000
_FILES = {"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


@router.get("/")
async def home(request: Request, services: ServicesDep) -> Response:
    """Landing page for strangers, the account for the others."""
    asker = await _asker(request, services)
    if asker is None:
        return _html(html.landing(frontend_url(request, services.settings)))
    return await _home(request, services, asker)


@router.get("/login")
async def login_page(request: Request, services: ServicesDep, link: str = "", next: str = "") -> Response:
    """The form, or the button for a login link; nothing is used up by looking.

    `next` is the view of the frontend where one came from; who is logged in already goes on there.
    """
    settings, wanted = services.settings, next[:_LONGEST_URL]
    if not link and settings.frontend_url is not None and await _asker(request, services) is not None:
        return RedirectResponse(after_login(request, wanted, settings), 303)
    shown = html.redeem(link[:200], wanted) if link else html.login(next=wanted)
    return _html(shown, leads_to=frontend_url(request, settings))


@router.post("/login")
async def log_in(request: Request, services: ServicesDep) -> Response:
    """Begins a browser session from either form, or says what was wrong."""
    settings = services.settings
    check_no_foreign_page(request.headers, settings.public_url, request.scope["scheme"])
    form = await _form(request)
    name, link, wanted = form.get("name", ""), form.get("link", ""), form.get("next", "")[:_LONGEST_URL]
    try:
        await take_login(
            services.redis, address_of(request), None if link else name, settings.logins_per_minute
        )
        if link:
            begun = await run_in_thread(auth.redeem_link, services.store, link, settings.session_hours)
        else:
            begun = await auth.log_in(services.store, name, form.get("password", ""), settings.session_hours)
    except FulcrumError as error:
        wait = {} if error.retry_after_s is None else {"Retry-After": str(math.ceil(error.retry_after_s))}
        shown = html.login(str(error), name[:200], wanted)
        return _html(shown, status_of(error), wait, leads_to=frontend_url(request, settings))
    response = RedirectResponse(after_login(request, wanted, settings), 303)
    set_session_cookie(response, begun, settings)
    return response


@router.post("/logout")
async def log_out(request: Request, services: ServicesDep) -> Response:
    """Ends the browser session."""
    asker = await _own_asker(request, services)
    if asker is not None:
        await run_in_thread(auth.log_out, services.store, asker)
    response = RedirectResponse("/", 303)
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.post("/account/password")
async def set_password(request: Request, services: ServicesDep) -> Response:
    """Sets one's password."""
    asker = await _own_asker(request, services)
    if asker is None:
        return RedirectResponse("/login", 303)
    form = await _form(request)
    try:
        new = TypeAdapter[Any](NewPassword).validate_python(form.get("new_password", ""))
        await take_password_check(services.redis, asker.user.id, services.settings.logins_per_minute)
        await auth.change_password(
            services.store, asker, form.get("current_password"), new.get_secret_value()
        )
    except ValidationError as error:
        return await _home(
            request, services, asker, html.bad(f"New password: {error.errors()[0]['msg']}"), 422
        )
    except (Denied, RateLimited) as error:
        return await _home(request, services, asker, html.bad(str(error)), status_of(error))
    return await _home(request, services, asker, html.good("Your password is set."))


@router.post("/account/tokens")
async def make_token(request: Request, services: ServicesDep) -> Response:
    """Makes an API token and shows it once."""
    asker = await _own_asker(request, services)
    if asker is None:
        return RedirectResponse("/login", 303)
    name = (await _form(request)).get("name", "").strip()[:200]
    if not name:
        return await _home(request, services, asker, html.bad("Give the token a name."), 422)
    _, text = await run_in_thread(tokens.create, services.store, asker, name, ["read", "write"], None)
    return await _home(request, services, asker, html.new_token(text), 201)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Style sheet and icon."""
    if name not in _FILES:
        raise NotFound(f"there is no {name[:80]!r} among {sorted(_FILES)}")
    content = await run_in_thread((_STATIC / name).read_bytes)
    return Response(content, media_type=_FILES[name], headers={"Cache-Control": "public, max-age=3600"})


async def _asker(request: Request, services: Services) -> Asker | None:
    if SESSION_COOKIE not in request.cookies:
        return None
    try:
        return await identify(services.store, request.headers)
    except Unauthenticated:
        return None


async def _own_asker(request: Request, services: Services) -> Asker | None:
    settings = services.settings
    check_own_page(request.headers, settings.public_url, request.scope["scheme"])
    asker = await _asker(request, services)
    if asker is not None:
        await take_request(
            services.redis, asker.user.id, settings.requests_per_minute, settings.request_burst
        )
    return asker


async def _form(request: Request) -> dict[str, str]:
    async with request.form(max_files=0, max_fields=10) as form:
        return {key: value for key, value in form.items() if isinstance(value, str)}


async def _home(
    request: Request, services: Services, asker: Asker, shown: str = "", status: int = 200
) -> Response:
    def own_projects() -> tuple[Project, ...]:
        with services.store.read() as tx:
            return tx.projects.of_user(asker.user.id, limit=100).items

    projects = await run_in_thread(own_projects)
    url = services.settings.public_url or str(request.base_url)
    content = html.home(
        asker.user,
        projects,
        await readiness(services),
        url.rstrip("/"),
        shown,
        frontend_url=frontend_url(request, services.settings),
    )
    return _html(content, status)


def _html(
    content: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    leads_to: str | None = None,
) -> Response:
    return HTMLResponse(content, status, {**html.headers(leads_to), **(headers or {})})
