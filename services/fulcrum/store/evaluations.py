"""Evaluations of corrections, and the looks at a data set that they cost."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownEvaluation
from fulcrum.domain.records import EvaluationRecord, LookRecord
from fulcrum.store.columns import Base, Kept, checked
from fulcrum.store.projects import ProjectRow
from fulcrum.store.repository import Repository


class EvaluationRow(Kept, Base):
    """An evaluation; never changed, never deleted."""

    __tablename__ = "evaluations"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "correction_id", "created_at"),
        Index(None, "dataset_id", "created_at"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str]
    correction_id: Mapped[str] = mapped_column(ForeignKey("corrections.id"))
    number: Mapped[int]
    correction_sha256: Mapped[str]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    dataset_digest: Mapped[str]
    split: Mapped[str]
    model_sha256: Mapped[str]
    sae_sha256: Mapped[str]
    code_version: Mapped[str]
    specification_sha256: Mapped[str]
    job_id: Mapped[str]
    report_sha256: Mapped[str]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    verdict: Mapped[str | None]
    badge: Mapped[str]
    look: Mapped[int]
    gates: Mapped[dict[str, Any]]
    numbers: Mapped[dict[str, Any]]
    columns_sha256: Mapped[str | None]
    parquet_sha256: Mapped[str | None]
    image_sets: Mapped[list[Any]] = mapped_column(server_default="[]")


class LookRow(Kept, Base):
    """A look; a job counts one for each version that it looked at, however often it was tried."""

    __tablename__ = "looks"
    __table_args__ = (
        UniqueConstraint("job_id", "correction_sha256"),
        Index(None, "project_id", "dataset_digest", "split", "created_at"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_digest: Mapped[str]
    split: Mapped[str]
    correction_sha256: Mapped[str]
    p: Mapped[float]
    number: Mapped[int]
    job_id: Mapped[str]


class Evaluations(Repository[EvaluationRecord]):
    """Evaluations, newest first."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, EvaluationRow, EvaluationRecord, UnknownEvaluation, "evaluation")

    def find(self, id: str) -> EvaluationRecord | None:
        """The evaluation, None if there is none of this id."""
        return self._one(self._table.c.id == checked("id", id))

    def _describe(self, record: Any) -> str:
        return f"evaluation {record.id}"


class Looks(Repository[LookRecord]):
    """Looks at splits, counted for a project."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, LookRow, LookRecord, UnknownEvaluation, "look")

    def count(self, look: LookRecord) -> LookRecord:
        """Keeps a look and numbers it; the one that the same job counted before for the same version, if it did.

        Two jobs that look at once get different numbers: the seal of confirm is broken once only.
        """
        c = self._table.c
        # Whoever counts in this project waits here for the other's transaction (SQLite has one writer at a time).
        self._connection.execute(
            select(ProjectRow.id).where(ProjectRow.id == look.project_id).with_for_update()
        ).all()
        counted = self._one(c.job_id == look.job_id, c.correction_sha256 == look.correction_sha256)
        if counted is not None:
            return counted
        before = self._connection.execute(
            select(func.count())
            .select_from(self._table)
            .where(
                c.project_id == look.project_id,
                c.dataset_digest == look.dataset_digest,
                c.split == look.split,
                c.correction_sha256 == look.correction_sha256,
            )
        ).scalar_one()
        return self.add(_numbered(look, int(before) + 1))

    def at(self, project_id: str, dataset_digest: str) -> tuple[LookRecord, ...]:
        """All looks at a data set, oldest first."""
        c = self._table.c
        rows = self._connection.execute(
            select(self._table)
            .where(c.project_id == project_id, c.dataset_digest == dataset_digest)
            .order_by(c.created_at, c.id)
        ).all()
        return tuple(self._from_row(r) for r in rows)

    def _describe(self, record: Any) -> str:
        return f"look {record.id}"


def _numbered(look: LookRecord, number: int) -> LookRecord:
    return LookRecord(**(vars(look) | {"number": number}))
