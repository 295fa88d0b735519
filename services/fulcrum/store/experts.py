"""Searches for experts: which units know which concepts."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownExperts
from fulcrum.domain.records import ExpertsRecord
from fulcrum.store.columns import Base, Kept, checked
from fulcrum.store.repository import Repository


class ExpertsRow(Kept, Base):
    """A search; never changed."""

    __tablename__ = "experts"
    __table_args__ = (
        UniqueConstraint("project_id", "key", "name"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "sae_id", "created_at"),
        Index(None, "dataset_id", "created_at"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    units: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    model_sha256: Mapped[str]
    key: Mapped[str]
    sha256: Mapped[str]
    job_id: Mapped[str]
    n_concepts: Mapped[int]
    n_units: Mapped[int]
    n_examples: Mapped[int]
    size_bytes: Mapped[int]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    sae_id: Mapped[str | None] = mapped_column(ForeignKey("saes.id"))
    sae_sha256: Mapped[str | None]
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    dataset_digest: Mapped[str | None]
    concept_set_sha256: Mapped[str | None]
    language_model: Mapped[str | None]
    numbers: Mapped[dict[str, Any]]


class ExpertSearches(Repository[ExpertsRecord]):
    """Searches, newest first; one of a key under a name."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ExpertsRow, ExpertsRecord, UnknownExperts, "search for experts")

    def by_key(self, project_id: str, key: str, name: str) -> ExpertsRecord | None:
        """The search of this key and name, None if there is none."""
        c = self._table.c
        return self._one(
            c.project_id == checked("project_id", project_id),
            c.key == checked("key", key),
            c.name == checked("name", name),
        )

    def _describe(self, record: Any) -> str:
        return f"search for experts {str(record.name)[:80]!r}"
