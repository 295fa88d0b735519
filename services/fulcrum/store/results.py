"""Answers of the engine as they were given."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownResult
from fulcrum.domain.records import ResultRecord
from fulcrum.store.columns import Base, Kept
from fulcrum.store.repository import Repository


class ResultRow(Kept, Base):
    """An answer; never changed, never deleted."""

    __tablename__ = "results"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "key", "created_at"),
        Index(None, "image_id", "created_at"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str]
    key: Mapped[str]
    request: Mapped[dict[str, Any]]
    response: Mapped[dict[str, Any]]
    provenance: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    image_id: Mapped[str | None] = mapped_column(ForeignKey("images.id"))


class Results(Repository[ResultRecord]):
    """Results; the same question may have been answered several times."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ResultRow, ResultRecord, UnknownResult, "result")

    def by_key(self, project_id: str, key: str) -> ResultRecord | None:
        """The newest answer to a question, None if it was never asked."""
        page = self.list(project_id=project_id, key=key, limit=1)
        return page.items[0] if page.items else None

    def _describe(self, record: Any) -> str:
        return f"result {record.id}"
