"""Answers of requests that carried an Idempotency-Key, for who sends the same request again."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, and_, delete, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import LargeBinary

from fulcrum.domain.errors import AlreadyExists, IdempotencyConflict
from fulcrum.domain.identifiers import now
from fulcrum.store.columns import Base, checked
from fulcrum.store.repository import Access

KEEP = timedelta(hours=24)  # how long an answer is given again
LEASE = timedelta(minutes=10)  # a request that runs longer has died with its process


@dataclass(frozen=True)
class StoredResponse:
    """An answer as it went out."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class IdempotencyRow(Base):
    """A key of a user; `status` is known once the request finished."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "expires_at"),)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    status: Mapped[int | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    headers: Mapped[dict[str, Any] | None]


class Idempotency(Access):
    """Begin in one transaction and commit it, do the work, finish in another."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, IdempotencyRow, "idempotency key")

    def begin(self, user_id: str, key: str, fingerprint: str) -> StoredResponse | None:
        """None: do the work, the key is yours. Else the answer of the first time.

        Raises IdempotencyConflict when the key belongs to another request, or to one that still runs.
        """
        c = self._table.c
        at = now()
        mine = and_(c.user_id == user_id, c.key == checked("Idempotency-Key", key))
        dead = or_(c.expires_at <= at, and_(c.status.is_(None), c.created_at <= at - LEASE))
        self._write(delete(self._table).where(mine, dead))
        self.purge()  # there is nobody else to do it, and each answer may have megabytes
        values = {
            "user_id": user_id,
            "key": key,
            "fingerprint": fingerprint,
            "created_at": at,
            "expires_at": at + KEEP,
        }
        try:
            self._insert(values, "idempotency key")
        except AlreadyExists:
            row = self._connection.execute(select(self._table).where(mine)).first()
            if row is None or row.status is None:
                raise IdempotencyConflict(
                    f"the request with the Idempotency-Key {key[:80]!r} still runs"
                ) from None
            if row.fingerprint != fingerprint:
                raise IdempotencyConflict(
                    f"the Idempotency-Key {key[:80]!r} was used with another request"
                ) from None
            return StoredResponse(row.status, row.body, row.headers or {})
        return None

    def finish(
        self, user_id: str, key: str, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Keep the answer for the next time."""
        c = self._table.c
        self._write(
            update(self._table)
            .where(c.user_id == user_id, c.key == checked("Idempotency-Key", key))
            .values(status=status, body=body, headers=headers or {})
        )

    def abandon(self, user_id: str, key: str) -> None:
        """Free the key of a request that failed, so that it can be tried again."""
        c = self._table.c
        self._write(
            delete(self._table).where(
                c.user_id == user_id, c.key == checked("Idempotency-Key", key), c.status.is_(None)
            )
        )

    def purge(self) -> int:
        """Forget what expired; how many."""
        return self._write(delete(self._table).where(self._table.c.expires_at <= now())).rowcount
