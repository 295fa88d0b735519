"""Who did what: lines that are only added, each with the hash of the one before.

A changed or removed line breaks the chain; removed last lines show at the head, which counts them.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Index, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain import codec
from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import AuditEvent, Page
from fulcrum.store.columns import Base, checked
from fulcrum.store.paging import checked_limit, from_cursor, to_cursor
from fulcrum.store.repository import Access

FIRST_HASH = "0" * 64  # before the first line
_HEAD = 1  # the only row of audit_head


class AuditRow(Base):
    """A line. No foreign keys: the log outlives what it tells of."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "user_id", "sequence"), Index(None, "subject", "sequence"))
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    user_id: Mapped[str | None]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]]
    previous_hash: Mapped[str]
    hash: Mapped[str]


class AuditHeadRow(Base):
    """Number and hash of the last line; its lock puts writers in a row."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int]
    hash: Mapped[str]


class Audit(Access):
    """The log of all projects."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, AuditRow, "audit event")

    def append(
        self, user_id: str | None, action: str, subject: str, detail: dict[str, Any] | None = None
    ) -> AuditEvent:
        """Add a line. Do it last in a transaction: until its end no other one can add any."""
        head = AuditHeadRow
        taken = self._write(
            update(head)
            .where(head.id == _HEAD)
            .values(sequence=head.sequence + 1)
            .returning(head.sequence, head.hash)
        ).one()
        for name, value in (("user_id", user_id), ("action", action), ("subject", subject)):
            checked(name, value)
        content = codec.to_json(detail or {})
        at = now()
        digest = _hash(taken.sequence, at, user_id, action, subject, content, taken.hash)
        event = AuditEvent(taken.sequence, at, user_id, action, subject, content, taken.hash, digest)
        self._write(insert(self._table).values(**event.__dict__))
        self._write(update(head).where(head.id == _HEAD).values(hash=digest))
        return event

    def list(self, *, limit: int = 50, cursor: str | None = None, **filters: Any) -> Page[AuditEvent]:
        """Lines, newest first, filtered by `user_id`, `action` or `subject`."""
        c = self._table.c
        query = select(self._table)
        for name, value in filters.items():
            if name not in ("user_id", "action", "subject"):
                raise InvalidRequest(f"the audit log cannot be filtered by {name!r}")
            if value is not None:
                query = query.where(c[name] == checked(name, value))
        if cursor is not None:
            query = query.where(c.sequence < from_cursor(cursor, self._word, int)[0])
        query = query.order_by(c.sequence.desc()).limit(checked_limit(limit) + 1)
        rows = self._connection.execute(query).all()
        items = tuple(AuditEvent(**r._mapping) for r in rows[:limit])
        return Page(items, to_cursor(self._word, items[-1].sequence) if len(rows) > limit else None)

    def verify(self) -> bool:
        """Whether every line is as it was written and none is missing. Reads the whole log."""
        previous, expected = FIRST_HASH, 1
        query = select(self._table).order_by(self._table.c.sequence).execution_options(yield_per=1000)
        with self._connection.execute(query) as rows:
            for row in rows:
                digest = _hash(
                    row.sequence, row.at, row.user_id, row.action, row.subject, row.detail, previous
                )
                if (row.sequence, row.previous_hash, row.hash) != (expected, previous, digest):
                    return False
                previous, expected = digest, expected + 1
        head = self._connection.execute(select(AuditHeadRow.sequence, AuditHeadRow.hash)).one_or_none()
        return head is not None and tuple(head) == (expected - 1, previous)


def _hash(
    sequence: int,
    at: datetime,
    user_id: str | None,
    action: str,
    subject: str,
    detail: dict[str, Any],
    previous_hash: str,
) -> str:
    content = [sequence, at.isoformat(), user_id, action, subject, detail, previous_hash]
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(written.encode()).hexdigest()
