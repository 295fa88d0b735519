"""Who is asking: the browser's login, as the gateway set it, and a client that asks with it and nothing else."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import NotFound, Unauthenticated
from fulcrum.domain.records import Project, Role, User
from fulcrum_ui import projects
from fulcrum_ui.settings import settings

T = TypeVar("T")

COOKIE = "fulcrum_session"
_KEPT = 64  # answers that a visit remembers
_ASKED = 20  # projects of an administrator, each with a request of its own
SHORT_S = 30.0  # for what colleagues or jobs may change: long enough for a few clicks


@dataclass(frozen=True)
class Visitor:
    """A person in a project: `client` asks for it and no other. `project` is None for a member of none."""

    client: Client
    user: User
    projects: tuple[Project, ...]
    project: Project | None

    def role_in(self, project_id: str) -> Role | None:
        """What the visitor may do in a project; administrators of the platform are admins everywhere."""
        return "admin" if self.user.is_admin else _role(login(), project_id, self.user.id)


def login() -> str:
    """The login of this browser, "" where there is none. Tests without a browser put it into the session's state."""
    return str(st.context.cookies.get(COOKIE) or st.session_state.get("login") or "")


def visitor() -> Visitor:
    """Raises Unauthenticated where nobody is logged in, ServiceUnavailable where the gateway does not answer,
    UnknownProject where the address names a project that is not theirs.
    """
    secret = login()
    if not secret:
        raise Unauthenticated("nobody is logged in")
    user, found, default = _visitor_data(secret)
    project = projects.settle(found, default)
    return Visitor(_client(secret, project.id if project and len(found) > 1 else None), user, found, project)


def client_of(secret: str) -> Client:
    """For routes beside the script, which have the cookie of their own request."""
    return _client(secret, None)


@st.cache_resource(max_entries=512, ttl=3600, show_spinner=False)
def _client(secret: str, project_id: str | None) -> Client:
    # Never `Client(url)` alone: without a login it would ask with the token of whoever runs this service.
    # No retries: a page says at once that something is down, and its button tries again.
    return Client(
        settings().gateway_url,
        login=secret,
        timeout_s=settings().timeout_s,
        retries=1,
        project_id=project_id,
    )


@st.cache_data(max_entries=256, ttl=30, show_spinner=False)
def _visitor_data(secret: str) -> tuple[User, tuple[Project, ...], str | None]:
    client = _client(secret, None)
    user, found = client.me(), tuple(client.projects.list())
    return user, found, _default(client, user, found)


def _default(client: Client, user: User, found: tuple[Project, ...]) -> str | None:
    """The oldest project that the visitor is a member of; administrators of the platform see those of others, too."""
    for project in found[::-1][:_ASKED]:
        if not user.is_admin or len(found) == 1:
            return project.id
        try:
            return client.projects.member(project, user).project_id
        except NotFound:
            continue
    return None


@st.cache_data(max_entries=1024, ttl=30, show_spinner=False)
def _role(secret: str, project_id: str, user_id: str) -> Role | None:
    try:
        return _client(secret, None).projects.member(project_id, user_id).role
    except NotFound:
        return None


def forget_visitor() -> None:
    """After this visitor's login ended or rights changed; the others are not asked about again."""
    _visitor_data.clear(login())


def login_link() -> str:
    """Where to log in, so that one comes back to this view."""
    return f"{account_url()}login?{urlencode({'next': st.context.url or ''})}"


def account_url() -> str:
    """Where a browser finds its tokens and password."""
    return f"{settings().public_url(st.context.url)}/"


def remembered(key: Hashable, make: Callable[[], T], *, for_s: float = float("inf")) -> T:
    """`make()`, or what it gave for the same key earlier in this visit, at most `for_s` seconds ago.

    Without `for_s` only for answers that never change: what colleagues or jobs can change is asked again.
    """
    kept: OrderedDict[Hashable, tuple[float, Any]] = st.session_state.setdefault("_remembered", OrderedDict())
    now = time.monotonic()
    if key in kept and now - kept[key][0] <= for_s:
        kept.move_to_end(key)
    else:
        kept.pop(key, None)
        kept[key] = now, make()
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    return kept[key][1]  # type: ignore[no-any-return]  # what this key's `make` gave


def forget(*kinds: str) -> None:
    """Drops what is remembered under keys that begin with one of these words."""
    kept: OrderedDict[Any, Any] = st.session_state.setdefault("_remembered", OrderedDict())
    for key in [k for k in kept if isinstance(k, tuple) and k and k[0] in kinds]:
        del kept[key]
