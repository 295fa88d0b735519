"""Who asks: the account, its API tokens, people, and projects with their members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.records import ApiToken, Member, Project, Role, Scope, User


@dataclass(frozen=True)
class NewToken:
    """A token with its secret, which is never shown again and stays out of `repr`."""

    record: ApiToken
    token: str

    def __repr__(self) -> str:
        return f"NewToken(record={self.record!r}, token='fct_...')"


@dataclass(frozen=True)
class Invited:
    """A person and the link with which they log in for the first time."""

    user: User
    login_link: str

    def __repr__(self) -> str:
        return f"Invited(user={self.user!r}, login_link='...')"


class Account(Bound[Side]):
    """On the client itself."""

    @operation
    def me(self) -> Flow[User]:
        """The user whose token this is. Raises Unauthenticated."""
        return (yield from self._wire.ask(User, "GET", path("me")))


class Tokens(Bound[Side]):
    """`client.tokens`: the asker's API tokens."""

    @operation
    def create(
        self, name: str, *, scopes: Sequence[Scope] = ("read",), expires_at: datetime | None = None
    ) -> Flow[NewToken]:
        """A new token; its secret is in this answer only. `expires_at` needs a time zone."""
        body = given(
            name=name,
            scopes=list(scopes),
            expires_at=None if expires_at is None else to_json(expires_at),
        )
        return (yield from self._wire.ask(NewToken, "POST", path("tokens"), json=body))

    @listing(ApiToken)
    def list(self) -> Flow[None]:
        """The asker's tokens, without their secrets."""
        yield from self._wire.pages(ApiToken, path("tokens"))

    @operation
    def delete(self, token: Identified | str) -> Flow[None]:
        """Revokes a token at once."""
        yield from self._wire.do("DELETE", path("tokens", id_of(token)))


class Users(Bound[Side]):
    """`client.users`: for administrators of the platform."""

    @operation
    def invite(
        self,
        name: str,
        *,
        is_admin: bool = False,
        project: Identified | str | None = None,
        role: Role = "analyst",
    ) -> Flow[Invited]:
        """Adds a person, also to a project; the answer holds the link to hand to them."""
        body = given(
            name=name,
            is_admin=is_admin,
            project_id=self._wire.project_id if project is None else id_of(project),
            role=role,
        )
        return (yield from self._wire.ask(Invited, "POST", path("users"), json=body))

    @listing(User)
    def list(self) -> Flow[None]:
        """Everybody on the platform, newest first."""
        yield from self._wire.pages(User, path("users"))

    @operation
    def get(self, user: Identified | str) -> Flow[User]:
        """One person. Raises UnknownUser."""
        return (yield from self._wire.ask(User, "GET", path("users", id_of(user))))

    @operation
    def update(
        self,
        user: Versioned | str,
        *,
        name: str | None = None,
        is_admin: bool | None = None,
        disabled: bool | None = None,
    ) -> Flow[User]:
        """The person renamed, promoted or disabled; who is disabled is logged out at once. Raises StaleVersion."""
        return (
            yield from self._wire.ask(
                User,
                "PATCH",
                path("users", id_of(user)),
                json=given(name=name, is_admin=is_admin, disabled=disabled),
                if_match=precondition(user),
            )
        )


class Projects(Bound[Side]):
    """`client.projects`."""

    @operation
    def create(self, name: str) -> Flow[Project]:
        """A new project. Raises AlreadyExists."""
        return (yield from self._wire.ask(Project, "POST", path("projects"), json={"name": name}))

    @listing(Project)
    def list(self) -> Flow[None]:
        """The projects that the asker may work in."""
        yield from self._wire.pages(Project, path("projects"))

    @listing(Member)
    def members(self, project: Identified | str) -> Flow[None]:
        """Who may do what in a project."""
        yield from self._wire.pages(Member, path("projects", id_of(project), "members"))

    @operation
    def put_member(self, project: Identified | str, user: Identified | str, role: Role) -> Flow[Member]:
        """Gives a user a role. Raises Conflict for the last administrator."""
        where = path("projects", id_of(project), "members", id_of(user))
        return (yield from self._wire.ask(Member, "PUT", where, json={"role": role}))

    @operation
    def remove_member(self, project: Identified | str, user: Identified | str) -> Flow[None]:
        """Takes a user out of a project. Raises Conflict for the last administrator."""
        yield from self._wire.do("DELETE", path("projects", id_of(project), "members", id_of(user)))
