"""Sessions and the lines of their log."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownSession
from fulcrum.domain.records import Page, SessionEntry, SessionRecord
from fulcrum.store.columns import Base, Kept
from fulcrum.store.registry import InProject
from fulcrum.store.repository import LivingRepository, Repository


class SessionRow(InProject, Base):
    """A session; several may have one title."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)
    title: Mapped[str]


class SessionEntryRow(Kept, Base):
    """A line of the log."""

    __tablename__ = "session_entries"
    __table_args__ = (Index(None, "session_id", "created_at", "id"),)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    kind: Mapped[str]
    content: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    result_id: Mapped[str | None] = mapped_column(ForeignKey("results.id"))
    image_id: Mapped[str | None] = mapped_column(ForeignKey("images.id"))


class Sessions(LivingRepository[SessionRecord]):
    """Sessions."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, SessionRow, SessionRecord, UnknownSession, "session")
        self._entries: Repository[SessionEntry] = Repository(
            connection, SessionEntryRow, SessionEntry, UnknownSession, "session entry"
        )

    def add_entry(self, entry: SessionEntry) -> SessionEntry:
        """Log a line. Raises UnknownSession, also for a deleted one; NotFound for what the line names."""
        self.get(entry.session_id)
        return self._entries.add(entry)

    def entries(self, session_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[SessionEntry]:
        """The log, newest line first. Raises UnknownSession."""
        self.get(session_id)
        return self._entries.list(session_id=session_id, limit=limit, cursor=cursor)
