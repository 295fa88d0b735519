"""What jobs say while they run: lines of their log and points of their curves."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, ForeignKey, Index, Table, delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain import codec
from fulcrum.domain.jobs import FINISHED, EventKind, JobEvent
from fulcrum.domain.records import Page
from fulcrum.store.columns import Base
from fulcrum.store.jobs import JobRow
from fulcrum.store.paging import checked_limit, from_cursor, to_cursor
from fulcrum.store.repository import Access


class JobEventRow(Base):
    """A line or a point."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "at"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str]
    content: Mapped[dict[str, Any]]


class JobEvents(Access):
    """Events, oldest first."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, JobEventRow, "event of a job")

    def append(self, job_id: str, events: Sequence[tuple[datetime, EventKind, dict[str, Any]]]) -> None:
        """Number and keep them. The job exists."""
        if not events:
            return
        jobs = cast(Table, JobRow.__table__)
        counted = (
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(n_events=jobs.c.n_events + len(events))
            .returning(jobs.c.n_events)
        )
        first = int(self._write(counted).scalar_one()) - len(events) + 1
        rows = [
            {"job_id": job_id, "number": first + i, "at": at, "kind": kind, "content": codec.to_json(content)}
            for i, (at, kind, content) in enumerate(events)
        ]
        self._connection.execute(insert(self._table), rows)

    def after(
        self, job_id: str, number: int, *, kind: EventKind | None = None, limit: int = 1000
    ) -> list[JobEvent]:
        """Those with a higher number."""
        c = self._table.c
        query = select(self._table).where(c.job_id == job_id, c.number > number)
        if kind is not None:
            query = query.where(c.kind == kind)
        rows = self._connection.execute(query.order_by(c.number).limit(checked_limit(limit))).all()
        return [_from_row(r) for r in rows]

    def list(
        self, job_id: str, kind: EventKind, *, limit: int = 50, cursor: str | None = None
    ) -> Page[JobEvent]:
        """A page, oldest first. Raises InvalidRequest for a bad limit or cursor."""
        number = 0 if cursor is None else from_cursor(cursor, self._word, int)[0]
        events = self.after(job_id, number, kind=kind, limit=checked_limit(limit))
        more = len(events) == limit and bool(self.after(job_id, events[-1].number, kind=kind, limit=1))
        return Page(tuple(events), to_cursor(self._word, events[-1].number) if more else None)

    def forget(self, before: datetime) -> int:
        """Remove what finished jobs said before a time; how many."""
        jobs = cast(Table, JobRow.__table__).c
        finished = select(jobs.id).where(jobs.state.in_(FINISHED))
        c = self._table.c
        return self._write(delete(self._table).where(c.at < before, c.job_id.in_(finished))).rowcount


def _from_row(row: Row[Any]) -> JobEvent:
    return JobEvent(row.job_id, row.number, row.at, cast(EventKind, row.kind), row.content)
