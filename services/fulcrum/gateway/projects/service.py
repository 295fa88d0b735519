"""Projects, and who may do what in them."""

from fulcrum.domain.errors import UnknownProject, UnknownUser
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Member, Page, Project, Role
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.store.database import Store


def create(store: Store, asker: Asker, name: str) -> Project:
    """A project with the asker as its admin. Raises AlreadyExists."""
    asker.require_scope("write")
    project = Project(new_id("prj"), name, now())
    with store.write() as tx:
        tx.projects.add(project)
        tx.members.put(Member(project.id, asker.user.id, "admin"))
        tx.audit.append(asker.user.id, "project.create", project.id, {"name": name})
    return project


def list_own(store: Store, asker: Asker, page: PageParams) -> Page[Project]:
    """The asker's projects; all of them for administrators of the platform."""
    asker.require_scope("read")
    with store.read() as tx:
        if asker.user.is_admin:
            return tx.projects.list(limit=page.limit, cursor=page.cursor)
        return tx.projects.of_user(asker.user.id, limit=page.limit, cursor=page.cursor)


def get(store: Store, asker: Asker, project_id: str) -> Project:
    """One of them. Raises UnknownProject."""
    with store.read() as tx:
        return tx.projects.get(asker.project(tx, project_id, "viewer"))


def rename(store: Store, asker: Asker, project_id: str, expected_version: int | None, name: str) -> Project:
    """The renamed project. Raises Forbidden, UnknownProject, StaleVersion, AlreadyExists."""
    with store.write() as tx:
        asker.project(tx, project_id, "admin")
        project = tx.projects.update(project_id, expected_version, name=name)
        tx.audit.append(asker.user.id, "project.update", project_id, {"name": name})
    return project


def list_members(store: Store, asker: Asker, project_id: str, page: PageParams) -> Page[Member]:
    """Who may do what."""
    with store.read() as tx:
        asker.project(tx, project_id, "viewer")
        return tx.members.list(project_id=project_id, limit=page.limit, cursor=page.cursor)


def get_member(store: Store, asker: Asker, project_id: str, user_id: str) -> Member:
    """What one person may do. Raises UnknownUser for who is no member."""
    with store.read() as tx:
        asker.project(tx, project_id, "viewer")
        role = tx.members.role(project_id, user_id)
        if role is None:
            raise UnknownUser(f"user {user_id[:80]!r} is no member of project {project_id}")
        return Member(project_id, user_id, role)


def put_member(store: Store, asker: Asker, project_id: str, user_id: str, role: Role) -> Member:
    """Gives somebody a role. Raises Forbidden, UnknownUser, Conflict for the last admin."""
    with store.write() as tx:
        asker.project(tx, project_id, "admin")
        member = tx.members.put(Member(project_id, user_id, role))
        tx.audit.append(asker.user.id, "member.put", project_id, {"user_id": user_id, "role": role})
    return member


def remove_member(store: Store, asker: Asker, project_id: str, user_id: str) -> None:
    """Takes the role away; everybody may leave. Raises Forbidden, UnknownUser, Conflict for the last admin."""
    with store.write() as tx:
        if user_id == asker.user.id:
            asker.require_scope("write")
            if tx.members.role(project_id, user_id) is None:
                raise UnknownProject(f"no project with the id {project_id[:80]!r}")
        else:
            asker.project(tx, project_id, "admin")
        tx.members.delete(project_id, user_id)
        tx.audit.append(asker.user.id, "member.remove", project_id, {"user_id": user_id})
