"""From a token or cookie to the user who sent it."""

from dataclasses import dataclass
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from fulcrum.domain.errors import Unauthenticated, UnknownUser
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import User
from fulcrum.gateway.asking import SCOPES, Asker
from fulcrum.gateway.auth import secrets
from fulcrum.gateway.deps import look, run_in_thread
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

SESSION_COOKIE = "fulcrum_session"
_TOUCH_AFTER = timedelta(
    minutes=1
)  # `last_used_at` is for people; a write for every request would be too many

# One text for every way to fail: an answer that tells an expired token from an unknown one helps guessing.
_REFUSED_TOKEN = "this API token is not valid: it does not exist, has expired or was revoked"
_REFUSED_COOKIE = "this login is not valid any more: log in again"


@dataclass(frozen=True)
class _Identified:
    """Who asks, and the token whose use is to be noted: a write, which may have to wait for others."""

    asker: Asker
    token_to_note: str | None = None


def session_cookie(headers: Headers) -> str | None:
    """Value of the session cookie, if there is one."""
    try:
        found = SimpleCookie("; ".join(headers.getlist("cookie"))).get(SESSION_COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


async def identify(store: Store, headers: Headers) -> Asker:
    """Who sent these headers; a token wins over a cookie. Raises Unauthenticated."""
    found = await look(store, _identify, headers)
    if found.token_to_note is not None:
        await run_in_thread(_note_use, store, found.token_to_note)
    return found.asker


def _identify(store: Store, headers: Headers) -> _Identified:
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(f"Authorization has the scheme {scheme[:20]!r}: send `Bearer fct_...`")
        return _by_token(store, credentials.strip())
    cookie = session_cookie(headers)
    if cookie is not None:
        return _Identified(_by_login(store, cookie))
    raise Unauthenticated("log in, or send an API token as `Authorization: Bearer fct_...`")


def _note_use(store: Store, token_id: str) -> None:
    with store.write() as tx:
        tx.tokens.touch(token_id)


def _by_token(store: Store, text: str) -> _Identified:
    parts = secrets.read_token(text)
    if parts is None:
        raise Unauthenticated(_REFUSED_TOKEN)
    with store.read() as tx:
        found = tx.tokens.by_id(parts[0])
        user = None if found is None else _active_user(tx, found[0].user_id)
    if found is None or user is None or not secrets.matches(parts[1], found[1]):
        raise Unauthenticated(_REFUSED_TOKEN)
    token = found[0]
    noted = token.last_used_at is not None and now() - token.last_used_at <= _TOUCH_AFTER
    return _Identified(Asker(user, token.scopes, token_id=token.id), None if noted else token.id)


def _by_login(store: Store, text: str) -> Asker:
    parts = secrets.read_pair(text)
    if parts is None:
        raise Unauthenticated(_REFUSED_COOKIE)
    with store.read() as tx:
        found = tx.logins.by_id(parts[0])
        user = None if found is None else _active_user(tx, found[0].user_id)
    if found is None or user is None or not secrets.matches(parts[1], found[1]):
        raise Unauthenticated(_REFUSED_COOKIE)
    return Asker(user, SCOPES, login_id=found[0].id)


def _active_user(tx: Transaction, user_id: str) -> User | None:
    try:
        user: User = tx.users.get(user_id)
    except UnknownUser:
        return None
    return None if user.disabled else user
