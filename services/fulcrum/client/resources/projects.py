"""Projects and their members."""

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.records import Member, Project, Role


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

    @operation
    def get(self, project: Identified | str) -> Flow[Project]:
        """One project. Raises UnknownProject."""
        return (yield from self._wire.ask(Project, "GET", path("projects", id_of(project))))

    @operation
    def rename(self, project: Versioned | str, name: str) -> Flow[Project]:
        """The project under another name. Raises StaleVersion, AlreadyExists."""
        where = path("projects", id_of(project))
        return (
            yield from self._wire.ask(
                Project, "PATCH", where, json={"name": name}, if_match=precondition(project)
            )
        )

    @operation
    def member(self, project: Identified | str, user: Identified | str) -> Flow[Member]:
        """What one person may do in a project."""
        where = path("projects", id_of(project), "members", id_of(user))
        return (yield from self._wire.ask(Member, "GET", where))

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
