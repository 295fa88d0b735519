"""Who asks, and what they may do: roles in a project, cut down by the scopes of the token they came with."""

from dataclasses import dataclass
from typing import Protocol, get_args

from fulcrum.domain.errors import Forbidden, NotFound, UnknownProject
from fulcrum.domain.records import Role, Scope, User
from fulcrum.store.transaction import Transaction

ROLES: tuple[Role, ...] = get_args(Role)  # each may do what the ones before it may
SCOPES: tuple[Scope, ...] = get_args(Scope)
# A token of a lesser scope cannot use the rest of its owner's role.
SCOPE_OF_ROLE: dict[Role, Scope] = {
    "viewer": "read",
    "analyst": "write",
    "reviewer": "write",
    "admin": "admin",
}


class OfProject(Protocol):
    """A record that belongs to a project."""

    @property
    def project_id(self) -> str:
        """Whose."""
        ...


@dataclass(frozen=True)
class Asker:
    """The user of this request. `scopes` are all of them for a browser login; `token_id` is None there.

    Pass the open transaction of the request: `asker.project(tx, body.project_id, "analyst")`.
    """

    user: User
    scopes: tuple[Scope, ...]
    token_id: str | None = None
    login_id: str | None = None

    def require_scope(self, scope: Scope) -> None:
        """Raises Forbidden when the token has only lesser scopes."""
        if all(SCOPES.index(mine) < SCOPES.index(scope) for mine in self.scopes):
            raise Forbidden(
                f"this needs a token with the scope {scope!r}, and this one has {list(self.scopes)}"
            )

    def require_platform_admin(self) -> None:
        """Raises Forbidden unless the user administers the platform, with the scope `admin`."""
        if not self.user.is_admin:
            raise Forbidden(f"this is for administrators of the platform, and {self.user.name!r} is none")
        self.require_scope("admin")

    def role(self, tx: Transaction, project_id: str) -> Role | None:
        """Role in a project; administrators of the platform are admins everywhere."""
        if self.user.is_admin:
            return "admin"
        found: Role | None = tx.members.role(project_id, self.user.id)
        return found

    def project(self, tx: Transaction, project_id: str | None, role: Role) -> str:
        """Id of the project to work in; None takes the asker's oldest one.

        Raises UnknownProject where the asker is no member (whether it exists is none of their business), Forbidden
        where the role or the token is not enough.
        """
        if project_id is None:
            project_id = self._default_project(tx)
        elif self.user.is_admin:
            tx.projects.get(project_id)
        unknown = UnknownProject(f"no project with the id {project_id[:80]!r}")
        self._require(tx, project_id, role, unknown)
        return project_id

    def others_who_may(self, tx: Transaction, project_id: str, role: Role) -> bool:
        """Whether anybody else has this role in the project, as a member or as an administrator of the platform."""
        members = tx.members.with_role(project_id, ROLES[ROLES.index(role) :])
        admins = tx.users.list(is_admin=True, disabled=False, limit=2).items
        return bool((members | {u.id for u in admins}) - {self.user.id})

    def may(self, tx: Transaction, record: OfProject, role: Role, unknown: NotFound) -> None:
        """Passes if the asker has this role where `record` belongs; raises `unknown` for a stranger, else Forbidden.

        `unknown` should read exactly as if the record did not exist.
        """
        self._require(tx, record.project_id, role, unknown)

    def _require(self, tx: Transaction, project_id: str, role: Role, unknown: NotFound) -> None:
        mine = self.role(tx, project_id)
        if mine is None:
            raise unknown
        self.require_scope(SCOPE_OF_ROLE[role])
        if ROLES.index(mine) < ROLES.index(role):
            raise Forbidden(f"this needs the role {role!r} in project {project_id}, and yours is {mine!r}")

    def _default_project(self, tx: Transaction) -> str:
        newest_first = tx.projects.of_user(self.user.id, limit=1000).items  # without deleted ones
        if not newest_first:
            raise UnknownProject("you are a member of no project: ask an administrator, or pass project_id")
        return newest_first[-1].id
