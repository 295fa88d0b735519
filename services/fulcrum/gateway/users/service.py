"""People on the platform."""

from typing import Any

from fulcrum.domain.errors import Conflict
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Member, Page, User
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.auth.service import new_link
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.users.schemas import UserBody
from fulcrum.store.database import Store


def list_users(store: Store, asker: Asker, page: PageParams) -> Page[User]:
    """Everybody, newest first: names are no secret among colleagues."""
    asker.require_scope("read")
    with store.read() as tx:
        return tx.users.list(limit=page.limit, cursor=page.cursor)


def get(store: Store, asker: Asker, user_id: str) -> User:
    """One of them. Raises UnknownUser."""
    asker.require_scope("read")
    with store.read() as tx:
        return tx.users.get(user_id)


def invite(store: Store, asker: Asker, body: UserBody) -> tuple[User, str]:
    """A new user and the secret part of their login link. Raises Forbidden, AlreadyExists, UnknownProject."""
    asker.require_platform_admin()
    user = User(new_id("usr"), body.name, now(), is_admin=body.is_admin)
    with store.write() as tx:
        tx.users.add(user)
        if body.project_id is not None:
            tx.members.put(Member(asker.project(tx, body.project_id, "admin"), user.id, body.role))
        link = new_link(tx, user.id)
        tx.audit.append(asker.user.id, "user.create", user.id, {"name": user.name, "is_admin": user.is_admin})
    return user, link


def invite_again(store: Store, asker: Asker, user_id: str) -> tuple[User, str]:
    """A login link for somebody who forgot their password, which is gone with that, like their browser sessions."""
    asker.require_platform_admin()
    with store.write() as tx:
        tx.users.set_password_hash(user_id, None)
        tx.logins.revoke_of(user_id, except_id=asker.login_id)
        link = new_link(tx, user_id)
        tx.audit.append(asker.user.id, "user.invite", user_id, {})
        return tx.users.get(user_id), link


def change(
    store: Store, asker: Asker, user_id: str, expected_version: int | None, changes: dict[str, Any]
) -> User:
    """The changed user. Raises Forbidden, UnknownUser, StaleVersion, AlreadyExists, Conflict for the last admin."""
    asker.require_platform_admin()
    with store.write() as tx:
        user = tx.users.update(user_id, expected_version, **changes)
        if user.disabled:
            tx.logins.revoke_of(user_id)
        tx.audit.append(asker.user.id, "user.update", user_id, changes)
        # After the line in the audit log, which lets one writer through at a time: two administrators who remove
        # each other at the same moment would each see the other one left.
        if changes.get("disabled") or changes.get("is_admin") is False:
            _refuse_without_admin(tx.users.list(is_admin=True, disabled=False, limit=1))
    return user


def _refuse_without_admin(left: Page[User]) -> None:
    if not left.items:
        raise Conflict("this is the last administrator of the platform: name another one first")
