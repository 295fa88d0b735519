"""People; only administrators of the platform invite and change them."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fulcrum.domain.records import User
from fulcrum.gateway.deps import (
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    ServicesDep,
    StoreDep,
    answer,
    answer_page,
)
from fulcrum.gateway.links import login_url
from fulcrum.gateway.users import service
from fulcrum.gateway.users.schemas import Invited, UserBody, UserPatch

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.get("", response_model=PageOf[User])
def list_users(asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Everybody on the platform, newest first."""
    return answer_page(service.list_users(store, asker, page))


@router.post("", status_code=201, response_model=Invited)
def invite_user(body: UserBody, asker: AskerDep, request: Request, services: ServicesDep) -> JSONResponse:
    """Adds a person. The answer holds the login link to hand to them."""
    user, link = service.invite(services.store, asker, body)
    return answer({"user": user, "login_link": login_url(request, services.settings, link)}, 201)


@router.get("/{user_id}", response_model=User)
def get_user(user_id: str, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One person."""
    return answer(service.get(store, asker, user_id))


@router.patch("/{user_id}", response_model=User)
def change_user(
    user_id: str, body: UserPatch, asker: AskerDep, store: StoreDep, version: IfMatch
) -> JSONResponse:
    """Renames, promotes or disables a person. Who is disabled is logged out at once; their tokens stop working."""
    return answer(service.change(store, asker, user_id, version, body.model_dump(exclude_none=True)))


@router.post("/{user_id}:invite", status_code=201, response_model=Invited)
def invite_again(user_id: str, asker: AskerDep, request: Request, services: ServicesDep) -> JSONResponse:
    """A new login link, for a person who cannot log in. Their password and browser sessions end."""
    user, link = service.invite_again(services.store, asker, user_id)
    return answer({"user": user, "login_link": login_url(request, services.settings, link)}, 201)
