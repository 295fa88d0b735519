"""What the first start makes, and what every start makes again: the way in for whoever sits at the machine."""

from dataclasses import dataclass
from datetime import timedelta

from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Member, Project, User
from fulcrum.gateway.auth.service import new_link
from fulcrum.gateway.settings import Settings
from fulcrum.gateway.tokens.service import issue
from fulcrum.store.database import Store, migrate, open_store
from fulcrum.store.transaction import Transaction

ADMIN_NAME = "admin"
PROJECT_NAME = "First project"
LOCAL_TOKEN_NAME = "this machine (fulcrum up)"
LINK_LIFE = timedelta(hours=24)


@dataclass(frozen=True)
class FirstRun:
    """The administrator's way in. Both secrets are new with every call."""

    admin: User
    project: Project
    login_link_secret: str  # for /login?link=...
    api_token: str  # for programs of this machine; the one before is revoked


def bootstrap(store: Store) -> FirstRun:
    """Makes administrator and project where there are none; always a new one-time link and a new local token.

    Safe to call again and at the same time: one transaction.
    """
    with store.write() as tx:
        admin = _admin(tx)
        project = _project(tx, admin)
        _revoke_local_tokens(tx, admin)
        _, text = issue(tx, admin.id, LOCAL_TOKEN_NAME, ("read", "write", "admin"))
        link = new_link(tx, admin.id, LINK_LIFE)
        tx.audit.append(None, "platform.start", admin.id, {"project_id": project.id})
    return FirstRun(admin, project, link, text)


@dataclass(frozen=True)
class Prepared:
    """A database that a gateway can serve, and the administrator's way in."""

    admin: User
    project: Project
    login_link: str  # works once


def prepare(settings: Settings) -> Prepared:
    """For services that run apart, once before the first start and before each new version: tables at head,
    administrator and project where there are none, and a new login link for the administrator.

    Raises InvalidSettings, ServiceUnavailable.
    """
    migrate(settings.database_url)
    with open_store(settings.database_url) as store, store.write() as tx:
        admin = _admin(tx)
        project = _project(tx, admin)
        link = new_link(tx, admin.id, LINK_LIFE)
        tx.audit.append(None, "platform.prepare", admin.id, {"project_id": project.id})
    base = settings.public_url or f"http://{settings.host}:{settings.port}"
    return Prepared(admin, project, f"{base.rstrip('/')}/login?link={link}")


def _admin(tx: Transaction) -> User:
    # The oldest one: the person who set this up, also after they took another name.
    found = [u for u in _all_admins(tx) if not u.disabled]
    if found:
        return found[-1]
    return tx.users.add(User(new_id("usr"), ADMIN_NAME, now(), is_admin=True))


def _all_admins(tx: Transaction) -> list[User]:
    return list(tx.users.list(is_admin=True, limit=1000).items)


def _project(tx: Transaction, admin: User) -> Project:
    mine = tx.projects.of_user(admin.id, limit=1000).items
    if mine:
        return mine[-1]
    any_project = tx.projects.list(limit=1000).items
    if any_project:  # administrators reach every project; none is made beside those that are there
        return any_project[-1]
    project = tx.projects.add(Project(new_id("prj"), PROJECT_NAME, now()))
    tx.members.put(Member(project.id, admin.id, "admin"))
    return project


def _revoke_local_tokens(tx: Transaction, admin: User) -> None:
    cursor = None
    while True:
        page = tx.tokens.list(user_id=admin.id, name=LOCAL_TOKEN_NAME, limit=200, cursor=cursor)
        for token in page.items:
            if token.revoked_at is None:
                tx.tokens.revoke(token.id)
        cursor = page.next_cursor
        if cursor is None:
            return
