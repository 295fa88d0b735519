"""People, for administrators of the platform."""

from dataclasses import dataclass

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.records import Role, User


@dataclass(frozen=True)
class Invited:
    """A person and the link with which they log in for the first time."""

    user: User
    login_link: str

    def __repr__(self) -> str:
        return f"Invited(user={self.user!r}, login_link='...')"


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

    @operation
    def invite_again(self, user: Identified | str) -> Flow[Invited]:
        """A new login link for a person who cannot log in; their password and browser sessions end."""
        return (yield from self._wire.ask(Invited, "POST", path("users", f"{id_of(user)}:invite")))
