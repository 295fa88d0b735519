"""Logging in by password or by one-time link, logging out, changing one's password."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fulcrum.domain.errors import Forbidden, Unauthenticated, UnknownUser
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Login, User
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.auth import secrets
from fulcrum.gateway.auth.passwords import hash_password, is_outdated, verify_password
from fulcrum.gateway.deps import run_in_thread
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

LINK_LIFE = timedelta(hours=24)

# The same for an unknown name, a wrong password and a disabled user.
_REFUSED = "name or password is wrong"
_REFUSED_LINK = "this login link is not valid: it was used already, has expired or never existed"


@dataclass(frozen=True)
class NewLogin:
    """A login that has just begun; `cookie` is shown to the browser and nobody else."""

    user: User
    login: Login
    cookie: str


async def log_in(store: Store, name: str, password: str, hours: float) -> NewLogin:
    """A browser session for the right password. Raises Unauthenticated."""

    def look_up() -> tuple[User, str] | None:
        with store.read() as tx:
            return tx.users.password_hash(name)

    found = await run_in_thread(look_up)
    right = await verify_password(password, None if found is None else found[1])
    if found is None or not right or found[0].disabled:
        await run_in_thread(_note, store, None if found is None else found[0].id, "auth.login_failed", {})
        raise Unauthenticated(_REFUSED)
    user, kept = found
    renewed = await hash_password(password) if is_outdated(kept) else None

    def begin() -> NewLogin:
        with store.write() as tx:
            if renewed is not None:
                tx.users.set_password_hash(user.id, renewed)
            return _begin(tx, user, hours, {"by": "password"})

    return await run_in_thread(begin)


def redeem_link(store: Store, text: str, hours: float) -> NewLogin:
    """A browser session for a login link, which works once. Raises Unauthenticated."""
    parts = secrets.read_pair(text)
    if parts is None:
        raise Unauthenticated(_REFUSED_LINK)
    with store.write() as tx:
        found = tx.links.redeem(parts[0])
        # Raising rolls back: who guesses at secrets must not burn the link of somebody else.
        if found is None or not secrets.matches(parts[1], found[1]):
            raise Unauthenticated(_REFUSED_LINK)
        try:
            user = tx.users.get(found[0])
        except UnknownUser:
            raise Unauthenticated(_REFUSED_LINK) from None
        if user.disabled:
            raise Unauthenticated(_REFUSED_LINK)
        return _begin(tx, user, hours, {"by": "link"})


def log_out(store: Store, asker: Asker) -> None:
    """Ends this browser session. Raises Forbidden for a token: it has none."""
    if asker.login_id is None:
        raise Forbidden("an API token has no browser session to end: revoke the token instead")
    with store.write() as tx:
        tx.logins.revoke(asker.login_id)
        tx.audit.append(asker.user.id, "auth.logout", asker.user.id, {})


async def change_password(store: Store, asker: Asker, current: str | None, new: str) -> None:
    """Sets one's password and ends one's other browser sessions. Raises Forbidden when `current` is wrong."""
    asker.require_scope("admin")

    def look_up() -> tuple[User, str] | None:
        with store.read() as tx:
            return tx.users.password_hash(asker.user.name)

    found = await run_in_thread(look_up)
    if found is not None and not await verify_password(current or "", found[1]):
        raise Forbidden("the current password is wrong or missing")
    kept = await hash_password(new)

    def change() -> None:
        with store.write() as tx:
            tx.users.set_password_hash(asker.user.id, kept)
            tx.logins.revoke_of(asker.user.id, except_id=asker.login_id)
            tx.audit.append(asker.user.id, "auth.password_changed", asker.user.id, {})

    await run_in_thread(change)


def new_link(tx: Transaction, user_id: str, life: timedelta = LINK_LIFE) -> str:
    """A login link's secret part, for `/login?link=`; works once, within its life."""
    link_id, secret = new_id("lnk"), secrets.new_secret()
    tx.links.add(link_id, user_id, secrets.hash_of(secret), now() + life)
    return secrets.pair_text(link_id, secret)


def _begin(tx: Transaction, user: User, hours: float, detail: dict[str, Any]) -> NewLogin:
    at = now()
    login = Login(new_id("log"), user.id, at, at + timedelta(hours=hours))
    secret = secrets.new_secret()
    tx.logins.add(login, secrets.hash_of(secret))
    tx.audit.append(user.id, "auth.login", user.id, detail)
    return NewLogin(user, login, secrets.pair_text(login.id, secret))


def _note(store: Store, user_id: str | None, action: str, detail: dict[str, Any]) -> None:
    with store.write() as tx:
        tx.audit.append(user_id, action, user_id or "nobody", detail)
