"""Who am I, let me in, let me out."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from fulcrum.domain.records import User
from fulcrum.gateway.auth import service
from fulcrum.gateway.auth.identify import SESSION_COOKIE
from fulcrum.gateway.auth.schemas import LoginBody, PasswordBody, RedeemBody
from fulcrum.gateway.deps import AskerDep, ServicesDep, StoreDep, answer, run_in_thread
from fulcrum.gateway.rate_limits import take_login, take_password_check
from fulcrum.gateway.settings import Settings

router = APIRouter(prefix="/v1", tags=["auth"])


@router.post("/auth/login", response_model=User)
async def log_in(body: LoginBody, request: Request, services: ServicesDep) -> JSONResponse:
    """Begins a browser session: the answer sets the cookie `fulcrum_session`. Programs use API tokens instead."""
    settings = services.settings
    await take_login(services.redis, address_of(request), body.name, settings.logins_per_minute)
    begun = await service.log_in(
        services.store, body.name, body.password.get_secret_value(), settings.session_hours
    )
    return _begun(begun, settings)


@router.post("/auth/links:redeem", response_model=User)
async def redeem_link(body: RedeemBody, request: Request, services: ServicesDep) -> JSONResponse:
    """Begins a browser session with a login link. The link works once: a second call fails."""
    settings = services.settings
    await take_login(services.redis, address_of(request), None, settings.logins_per_minute)
    begun = await run_in_thread(
        service.redeem_link, services.store, body.link.get_secret_value(), settings.session_hours
    )
    return _begun(begun, settings)


@router.post("/auth/logout", status_code=204, response_class=Response)
def log_out(asker: AskerDep, store: StoreDep) -> Response:
    """Ends this browser session; its cookie is worth nothing afterwards."""
    service.log_out(store, asker)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.get("/me", response_model=User)
async def me(asker: AskerDep) -> JSONResponse:
    """The asker."""
    return answer(asker.user)


@router.put("/me/password", status_code=204, response_class=Response)
async def change_password(body: PasswordBody, asker: AskerDep, services: ServicesDep) -> Response:
    """Sets the asker's password. All their other browser sessions end; API tokens stay."""
    await take_password_check(services.redis, asker.user.id, services.settings.logins_per_minute)
    current = None if body.current_password is None else body.current_password.get_secret_value()
    await service.change_password(services.store, asker, current, body.new_password.get_secret_value())
    return Response(status_code=204)


def address_of(request: Request) -> str:
    """Whom attempts to log in count for: the peer, or who a trusted proxy says it is."""
    return request.client.host if request.client else "local"


def set_session_cookie(response: Response, begun: service.NewLogin, settings: Settings) -> None:
    """Puts a new login into the browser, out of reach for scripts and foreign pages."""
    response.set_cookie(
        SESSION_COOKIE,
        begun.cookie,
        max_age=int(settings.session_hours * 3600),
        httponly=True,
        samesite="lax",
        secure=settings.cookie_secure or (settings.public_url or "").startswith("https:"),
    )


def _begun(begun: service.NewLogin, settings: Settings) -> JSONResponse:
    response = answer(begun.user)
    set_session_cookie(response, begun, settings)
    return response
