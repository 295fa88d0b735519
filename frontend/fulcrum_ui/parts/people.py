"""Names of colleagues, and who of them may write and review."""

from typing import get_args

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.records import Role, User
from fulcrum_ui.visitor import SHORT_S, Visitor, remembered

_ROLES: tuple[Role, ...] = get_args(Role)  # each may do what the ones before it may
_REVIEWERS: tuple[Role, ...] = ("reviewer", "admin")


def name(client: Client, user_id: str | None) -> str:
    """What a person is called; "somebody" who is no longer on the platform."""
    found = None if user_id is None else _everybody(client).get(user_id)
    return found.name if found else "somebody"


def missing_role(who: Visitor, needed: Role = "analyst") -> Role | None:
    """The visitor's role in their project where `needed` is more, None where they may.

    Also None where it cannot be found out, or they left the project meanwhile: the gateway says it in the end.
    """
    if who.project is None:
        return None
    try:
        mine = who.role_in(who.project.id)
    except FulcrumError:
        return None
    return mine if mine is not None and _ROLES.index(mine) < _ROLES.index(needed) else None


def may_write(who: Visitor) -> bool:
    """Whether the visitor may ask the model, keep and start things in their project; a viewer reads."""
    return missing_role(who) is None


def may_review(who: Visitor, project_id: str) -> bool:
    """Whether the visitor confirms and rejects what others of the project propose."""
    return who.role_in(project_id) in _REVIEWERS


def others_may_review(who: Visitor, project_id: str) -> bool:
    """Whether anybody else does. True where it cannot be found out: the gateway says it in the end."""
    try:
        members = remembered(
            ("members", project_id), lambda: list(who.client.projects.members(project_id)), for_s=SHORT_S
        )
        people = _everybody(who.client)
    except FulcrumError:
        return True
    able = {m.user_id for m in members if m.role in _REVIEWERS} | {
        u.id for u in people.values() if u.is_admin
    }
    return any(id in people and not people[id].disabled for id in able - {who.user.id})


def _everybody(client: Client) -> dict[str, User]:
    return remembered(("people",), lambda: {u.id: u for u in client.users.list()}, for_s=SHORT_S)
