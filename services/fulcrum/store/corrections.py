"""Corrections: a living head, and versions that never change."""

import dataclasses
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain import codec
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import AlreadyExists, CorruptArtifact, InvalidRequest, UnknownCorrection
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, Page
from fulcrum.store.columns import Base, checked
from fulcrum.store.paging import checked_limit, from_cursor, to_cursor
from fulcrum.store.registry import InProject, unique_while_alive
from fulcrum.store.repository import Access, Changing


class CorrectionRow(InProject, Base):
    """A named correction."""

    __tablename__ = "corrections"
    __table_args__ = (
        unique_while_alive("corrections", "project_id", "name"),
        Index(None, "project_id", "created_at", "id"),
    )
    name: Mapped[str]
    description: Mapped[str]
    state: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    sae_id: Mapped[str | None] = mapped_column(ForeignKey("saes.id"))
    latest: Mapped[int]


class CorrectionVersionRow(Base):
    """A version, by number from 1."""

    __tablename__ = "correction_versions"
    __table_args__ = (Index(None, "sha256"),)
    correction_id: Mapped[str] = mapped_column(ForeignKey("corrections.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str]
    correction: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    note: Mapped[str]


class _Versions(Access):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, CorrectionVersionRow, "correction version")

    def add(self, version: CorrectionVersion) -> None:
        values = {f.name: getattr(version, f.name) for f in dataclasses.fields(version)}
        values["correction"] = codec.to_json(version.correction)
        values["note"] = checked("note", version.note)
        self._insert(values, f"version {version.number} of correction {version.correction_id}")

    def find(self, correction_id: str, number: int) -> CorrectionVersion | None:
        c = self._table.c
        found = self._connection.execute(
            select(self._table).where(c.correction_id == correction_id, c.number == checked("number", number))
        ).first()
        return None if found is None else _from_row(found)

    def list(self, correction_id: str, limit: int, cursor: str | None) -> Page[CorrectionVersion]:
        c = self._table.c
        query = select(self._table).where(c.correction_id == correction_id)
        if cursor is not None:
            query = query.where(c.number < from_cursor(cursor, self._word, int)[0])
        query = query.order_by(c.number.desc()).limit(checked_limit(limit) + 1)
        rows = self._connection.execute(query).all()
        end = to_cursor(self._word, rows[limit - 1].number) if len(rows) > limit else None
        return Page(tuple(_from_row(r) for r in rows[:limit]), end)


class Corrections(Changing[CorrectionRecord]):
    """Corrections; names are unique in a project."""

    FIXED = Changing.FIXED | {"latest"}

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, CorrectionRow, CorrectionRecord, UnknownCorrection, "correction")
        self._versions = _Versions(connection)

    def add(self, record: CorrectionRecord, version: CorrectionVersion) -> CorrectionRecord:
        """Keep a new correction with its version 1. Raises AlreadyExists for a taken name, InvalidRequest
        for a version whose `sha256` is not that of its content.
        """
        assert (record.latest, version.number) == (1, 1), "the first version has the number 1"
        assert version.correction_id == record.id
        _check_hash(version)
        with self._connection.begin_nested():
            self._insert(self._values_of(record), self._describe(record))
            self._versions.add(version)
        return record

    def add_version(
        self, id: str, expected_version: int | None, version: CorrectionVersion
    ) -> CorrectionRecord:
        """Keep the next version, numbered here; the correction is a draft again.

        Raises UnknownCorrection, StaleVersion, AlreadyExists when the newest version has the same content,
        InvalidRequest when `sha256` is not that of the content.
        """
        _check_hash(version)
        with self._connection.begin_nested():  # a refusal leaves the head as it was
            # The head is counted up first: from here on no other writer can take the same number.
            self._change(id, expected_version, {"latest": self._table.c.latest + 1, "state": "draft"})
            head = self.get(id)
            before = self._versions.find(id, head.latest - 1)
            if before is not None and before.sha256 == version.sha256:
                raise AlreadyExists(f"version {before.number} of correction {id} has the same content")
            self._versions.add(dataclasses.replace(version, correction_id=id, number=head.latest))
        return head

    def get_version(self, id: str, number: int | None = None) -> CorrectionVersion:
        """A version, the newest for None. Raises UnknownCorrection, CorruptArtifact if its content was altered."""
        head = self.get(id)
        found = self._versions.find(id, head.latest if number is None else number)
        if found is None:
            raise UnknownCorrection(f"correction {id} has no version {number}: it has 1 to {head.latest}")
        return found

    def versions(self, id: str, *, limit: int = 50, cursor: str | None = None) -> Page[CorrectionVersion]:
        """All versions, newest first. Raises UnknownCorrection."""
        self.get(id)
        return self._versions.list(id, limit, cursor)


def _check_hash(version: CorrectionVersion) -> None:
    if version.sha256 != version.correction.sha256:
        raise InvalidRequest(
            f"sha256 is {version.sha256!r}: the canonical JSON has {version.correction.sha256}"
        )


def _from_row(row: Row[Any]) -> CorrectionVersion:
    values = {f.name: row._mapping[f.name] for f in dataclasses.fields(CorrectionVersion)}
    values["correction"] = codec.from_json(Correction, values["correction"])
    version = CorrectionVersion(**values)
    if version.correction.sha256 != version.sha256:
        raise CorruptArtifact(
            f"version {version.number} of correction {version.correction_id} is named {version.sha256}, "
            f"but its content has {version.correction.sha256}"
        )
    return version
