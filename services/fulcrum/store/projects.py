"""Projects and who may do what in them."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, cast, get_args

from sqlalchemy import Connection, ForeignKey, Index, bindparam, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import Conflict, InvalidRequest, UnknownProject, UnknownUser
from fulcrum.domain.records import Member, Page, Project, Role
from fulcrum.store.columns import Base, Living, checked
from fulcrum.store.paging import checked_limit, from_cursor, to_cursor
from fulcrum.store.people import UserRow
from fulcrum.store.prepared import Prepared
from fulcrum.store.repository import Access, LivingRepository

_ALIVE = text("deleted_at IS NULL")


class ProjectRow(Living, Base):
    """A project."""

    __tablename__ = "projects"
    __table_args__ = (
        Index("uq_projects_name", "name", unique=True, sqlite_where=_ALIVE, postgresql_where=_ALIVE),
        Index(None, "created_at", "id"),
    )
    name: Mapped[str]


class MemberRow(Base):
    """A user's role in a project."""

    __tablename__ = "members"
    __table_args__ = (Index(None, "user_id", "project_id"),)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    role: Mapped[str]


class Projects(LivingRepository[Project]):
    """Projects."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ProjectRow, Project, UnknownProject, "project")

    def of_user(self, user_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[Project]:
        """The projects that a user is a member of, newest first."""
        mine = select(MemberRow.project_id).where(MemberRow.user_id == checked("user_id", user_id))
        return self._page(self._filtered({}).where(self._table.c.id.in_(mine)), limit, cursor)


@lru_cache(maxsize=1)
def _role() -> Prepared:
    return Prepared(
        select(MemberRow.role)
        .join(ProjectRow, ProjectRow.id == MemberRow.project_id)
        .where(
            MemberRow.project_id == bindparam("project_id"),
            MemberRow.user_id == bindparam("user_id"),
            ProjectRow.deleted_at.is_(None),
        )
    )


class Members(Access):
    """Who may do what. A project that has an admin keeps one."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, MemberRow, "member")

    def role(self, project_id: str, user_id: str) -> Role | None:
        """The user's role, None for who is no member (or of a deleted project)."""
        asked = {"project_id": checked("project_id", project_id), "user_id": checked("user_id", user_id)}
        columns = _role().first(self._connection, asked)
        return None if columns is None else cast(Role, columns["role"])

    def list(
        self,
        project_id: str | None = None,
        user_id: str | None = None,
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Member]:
        """Members of a project, or memberships of a user, ordered by their ids."""
        c = self._table.c
        query = select(self._table)
        if project_id is not None:
            query = query.where(c.project_id == checked("project_id", project_id))
        if user_id is not None:
            query = query.where(c.user_id == checked("user_id", user_id))
        if cursor is not None:
            project, user = from_cursor(cursor, self._word, str, str)
            query = query.where((c.project_id > project) | ((c.project_id == project) & (c.user_id > user)))
        query = query.order_by(c.project_id, c.user_id).limit(checked_limit(limit) + 1)
        rows = self._connection.execute(query).all()
        items = tuple(Member(r.project_id, r.user_id, r.role) for r in rows[:limit])
        more = len(rows) > limit
        return Page(items, to_cursor(self._word, items[-1].project_id, items[-1].user_id) if more else None)

    def with_role(self, project_id: str, roles: Collection[Role]) -> frozenset[str]:
        """Ids of the users who have one of these roles in a project and can log in."""
        query = (
            select(MemberRow.user_id)
            .join(UserRow, UserRow.id == MemberRow.user_id)
            .where(
                MemberRow.project_id == checked("project_id", project_id),
                MemberRow.role.in_(roles),
                UserRow.deleted_at.is_(None),
                UserRow.disabled.is_(False),
            )
        )
        return frozenset(self._connection.execute(query).scalars())

    def put(self, member: Member) -> Member:
        """Set a role. Raises Conflict for the last admin, UnknownProject, UnknownUser."""
        if member.role not in get_args(Role):
            raise InvalidRequest(f"role is {member.role!r}: expected one of {list(get_args(Role))}")
        self._lock(member.project_id)
        alive = select(UserRow.id).where(
            UserRow.id == checked("user_id", member.user_id), UserRow.deleted_at.is_(None)
        )
        if self._connection.execute(alive).first() is None:
            raise UnknownUser(f"no user with the id {member.user_id[:80]!r}")
        if member.role != "admin":
            self._refuse_last_admin(member.project_id, member.user_id)
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        values = {"project_id": member.project_id, "user_id": member.user_id, "role": member.role}
        self._write(
            dialect.insert(self._table)
            .values(**values)
            .on_conflict_do_update(index_elements=["project_id", "user_id"], set_={"role": member.role})
        )
        return member

    def delete(self, project_id: str, user_id: str) -> None:
        """Take the role away. Raises Conflict for the last admin, UnknownProject, UnknownUser for no member."""
        self._lock(project_id)
        self._refuse_last_admin(project_id, user_id)
        c = self._table.c
        done = self._write(
            delete(self._table).where(c.project_id == project_id, c.user_id == checked("user_id", user_id))
        )
        if done.rowcount == 0:
            raise UnknownUser(f"user {user_id[:80]!r} is no member of project {project_id}")

    def _lock(self, project_id: str) -> None:
        # The row lock of an update that changes nothing: two admins who remove each other at the same moment
        # would each see the other one left.
        done = self._write(
            update(ProjectRow)
            .where(ProjectRow.id == checked("project_id", project_id), ProjectRow.deleted_at.is_(None))
            .values(name=ProjectRow.name)
        )
        if done.rowcount == 0:
            raise UnknownProject(f"no project with the id {project_id[:80]!r}")

    def _refuse_last_admin(self, project_id: str, user_id: str) -> None:
        c = self._table.c
        admins = select(func.count()).where(c.project_id == project_id, c.role == "admin")
        others = self._connection.execute(admins.where(c.user_id != user_id)).scalar_one()
        if others == 0 and self.role(project_id, user_id) == "admin":
            raise Conflict(
                f"user {user_id} is the last admin of project {project_id}: name another one first"
            )
