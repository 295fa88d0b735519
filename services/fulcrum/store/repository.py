"""A table as a collection of records, and its verbs.

A row has the field names of its record. Fields that are neither text, number nor time are JSON columns in the form
of `domain.codec`, and come back as what the record's annotation says.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import JSON, Connection, Table, and_, bindparam, insert, literal, select, tuple_, update
from sqlalchemy.engine import CursorResult, Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement, Select
from sqlalchemy.sql.dml import Delete, Insert, ReturningDelete, ReturningInsert, ReturningUpdate, Update

from fulcrum.domain import codec
from fulcrum.domain.errors import AlreadyExists, InvalidRequest, NotFound, StaleVersion
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import Page
from fulcrum.store.columns import Base, Moment, checked
from fulcrum.store.paging import checked_limit, from_cursor, to_cursor
from fulcrum.store.prepared import Prepared

R = TypeVar("R")

Statement = (
    Insert | Update | Delete | ReturningInsert[Any] | ReturningUpdate[Any] | ReturningDelete[Any]
)  # what changes rows


class Access:
    """One table within one transaction. `word` is what messages call the thing in a row."""

    def __init__(self, connection: Connection, row: type[Base], word: str) -> None:
        self._connection = connection
        self._table = cast(Table, row.__table__)
        self._word = word

    def _write(self, statement: Statement) -> CursorResult[Any]:
        self._check_writing()
        return self._connection.execute(statement)

    def _check_writing(self) -> None:
        assert self._connection.get_execution_options().get("fulcrum_write"), (
            "a read transaction cannot write"
        )

    @contextmanager
    def _constraints(self, what: str, values: Mapping[str, Any]) -> Iterator[None]:
        """For one statement. Raises AlreadyExists and NotFound; the caller's transaction goes on."""
        # A savepoint: on PostgreSQL the failed statement would otherwise end the caller's transaction, who may
        # want to fetch the row that was there. SQLite takes back the failed statement alone.
        on_sqlite = self._connection.dialect.name == "sqlite"
        try:
            with nullcontext() if on_sqlite else self._connection.begin_nested():
                yield
        except IntegrityError as error:
            if _is_unique_violation(error):
                raise AlreadyExists(f"{what} already exists") from None
            self._name_missing_reference(values)
            raise

    def _name_missing_reference(self, values: Mapping[str, Any]) -> None:
        for key in sorted(self._table.foreign_keys, key=lambda k: k.parent.name):
            value = values.get(key.parent.name)
            if value is None:
                continue
            if self._connection.execute(select(key.column).where(key.column == value)).first() is None:
                raise NotFound(f"{self._word}.{key.parent.name} is {value!r}, which does not exist")

    def _insert(self, values: Mapping[str, Any], what: str) -> None:
        with self._constraints(what, values):
            self._check_writing()
            _insert_into(self._table, tuple(values)).run(self._connection, values)


class Listing(Access, Generic[R]):
    """Records that can be looked up and listed."""

    def __init__(
        self, connection: Connection, row: type[Base], record: type[R], unknown: type[NotFound], word: str
    ) -> None:
        super().__init__(connection, row, word)
        self._record = record
        self._fields = tuple(f.name for f in dataclasses.fields(cast(Any, record)))
        self._unknown = unknown

    def get(self, id: str) -> R:
        """The record. Raises the Unknown... error of its kind, also for a deleted one."""
        if not _is_plain(id):
            raise self._not_found(id)
        columns = _by_id(self._table).first(self._connection, {"id": id})
        if columns is None:
            raise self._not_found(id)
        return self._from_columns(columns)

    def list(
        self, project_id: str | None = None, *, limit: int = 50, cursor: str | None = None, **filters: Any
    ) -> Page[R]:
        """A page, newest first. A filter of None is none. Raises InvalidRequest for a bad limit, cursor or filter."""
        if project_id is not None:
            filters["project_id"] = project_id
        return self._page(self._filtered(filters), limit, cursor)

    def _values(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        as_json = _json_columns(self._table)
        return {
            name: codec.to_json(value) if name in as_json else checked(f"{self._word}.{name}", value)
            for name, value in fields.items()
        }

    def _values_of(self, record: R) -> dict[str, Any]:
        return self._values({name: getattr(record, name) for name in self._fields})

    def _from_row(self, row: Row[Any]) -> R:
        return self._from_columns(cast(Mapping[str, Any], row._mapping))

    def _from_columns(self, columns: Mapping[str, Any]) -> R:
        hints = _hints(cast(Any, self._record))
        values = {name: columns[name] for name in self._fields}
        for name in _json_columns(self._table):
            if name in values:  # a repository may keep more than its record shows
                values[name] = codec.from_json(hints[name], values[name], f"{self._word}.{name}")
        return self._record(**values)

    def _one(self, *where: ColumnElement[bool]) -> R | None:
        row = self._connection.execute(select(self._table).where(*where, *self._alive())).first()
        return None if row is None else self._from_row(row)

    def _alive(self) -> tuple[ColumnElement[bool], ...]:
        return _alive(self._table)

    def _not_found(self, id: str) -> NotFound:
        return self._unknown(f"no {self._word} with the id {id[:80]!r}")

    def _describe(self, record: Any) -> str:
        return f"{self._word} {str(getattr(record, 'name', record.id))[:80]!r}"

    def _filtered(self, filters: Mapping[str, Any]) -> Select[Any]:
        query = select(self._table).where(*self._alive())
        for name, value in filters.items():
            if value is None:
                continue
            if name not in self._fields or name in _json_columns(self._table):
                raise InvalidRequest(f"a list of {self._word}s cannot be filtered by {name!r}")
            query = query.where(self._table.c[name] == checked(name, value))
        return query

    def _page(self, query: Select[Any], limit: int, cursor: str | None) -> Page[R]:
        c = self._table.c
        if cursor is not None:
            moment, id = from_cursor(cursor, self._word, str, str)
            try:
                at = datetime.fromisoformat(moment).astimezone(UTC)
            except (ValueError, OverflowError):
                raise InvalidRequest(f"cursor is {cursor[:80]!r}: it holds no time") from None
            query = query.where(tuple_(c.created_at, c.id) < tuple_(literal(at, Moment()), literal(id)))
        query = query.order_by(c.created_at.desc(), c.id.desc()).limit(checked_limit(limit) + 1)
        rows = self._connection.execute(query).all()
        more = len(rows) > limit
        rows = rows[:limit]
        end = to_cursor(self._word, rows[-1].created_at.isoformat(), rows[-1].id) if more else None
        return Page(tuple(self._from_row(r) for r in rows), end)


class Repository(Listing[R]):
    """Records that are made once."""

    def add(self, record: R) -> R:
        """Keep a new record. Raises AlreadyExists (id, or name in the project), NotFound for what it names."""
        self._insert(self._values_of(record), self._describe(record))
        return record


class Changing(Listing[R]):
    """Records that change: each change counts `version` up."""

    FIXED = frozenset(
        {"id", "project_id", "created_at", "created_by", "version"}
    )  # `update` leaves them alone

    def update(self, id: str, expected_version: int | None = None, **changes: Any) -> R:
        """Change fields; None as `expected_version` accepts whatever is there.

        Raises the Unknown... error, StaleVersion when the row has another version, AlreadyExists for a taken name.
        """
        wrong = sorted(set(changes) & self.FIXED)
        assert not wrong, f"{wrong} cannot be changed"
        values = self._values(changes)
        with self._constraints(f"{self._word} {str(changes.get('name', id))[:80]!r}", values):
            self._change(id, expected_version, values)
        return self.get(id)

    def delete(self, id: str, expected_version: int | None = None) -> None:
        """Hide it from `get` and `list` and free its name. Raises as `update` does."""
        self._change(id, expected_version, {"deleted_at": now()})

    def deleted(self, id: str) -> R:
        """What `restore` would bring back. Raises the Unknown... error, also for what is not deleted."""
        if not _is_plain(id):
            raise self._not_found(id)
        c = self._table.c
        query = select(self._table).where(c.id == id, c.deleted_at.is_not(None))
        row = self._connection.execute(query).first()
        if row is None:
            raise self._not_found(id)
        return self._from_row(row)

    def restore(self, id: str) -> R:
        """Undo `delete`. Raises AlreadyExists when the name was taken since, and the Unknown... error."""
        if not _is_plain(id):
            raise self._not_found(id)
        c = self._table.c
        statement = update(self._table).where(c.id == id, c.deleted_at.is_not(None))
        with self._constraints(f"{self._word} of the name of {id!r}", {}):
            changed = self._write(statement.values(deleted_at=None, version=c.version + 1))
            if changed.rowcount == 0:
                raise self._unknown(f"no deleted {self._word} with the id {id[:80]!r}")
        return self.get(id)

    def _change(self, id: str, expected_version: int | None, values: Mapping[str, Any]) -> None:
        # One statement compares and counts, so two writers who read the same version cannot both succeed.
        if not _is_plain(id):
            raise self._not_found(id)
        c = self._table.c
        where = and_(c.id == id, c.deleted_at.is_(None))
        if expected_version is not None:
            where = and_(where, c.version == checked("version", expected_version))
        statement = update(self._table).where(where).values(**values, version=c.version + 1)
        if self._write(statement).rowcount == 0:
            found: Any = self.get(id)
            raise StaleVersion(
                f"{self._word} {id} has version {found.version}, not {expected_version}: read it again"
            )


class LivingRepository(Changing[R], Repository[R]):
    """Records that are made alone, change and can be deleted."""


@lru_cache(maxsize=64)
def _hints(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record)


@lru_cache(maxsize=64)
def _json_columns(table: Table) -> frozenset[str]:
    return frozenset(c.name for c in table.c if isinstance(c.type, JSON))


def _alive(table: Table) -> tuple[ColumnElement[bool], ...]:
    return (table.c.deleted_at.is_(None),) if "deleted_at" in table.c else ()


@lru_cache(maxsize=64)
def _by_id(table: Table) -> Prepared:
    return Prepared(select(table).where(table.c.id == bindparam("id"), *_alive(table)))


@lru_cache(maxsize=256)
def _insert_into(table: Table, columns: tuple[str, ...]) -> Prepared:
    return Prepared(insert(table), columns)


def _is_plain(id: str) -> bool:
    return (
        id.isascii() and id.isprintable()
    )  # all that new_id makes, and nothing a database refuses to compare


def _is_unique_violation(error: IntegrityError) -> bool:
    """Whether a row of the same key exists (else the row names one that does not)."""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")
    return getattr(error.orig, "sqlstate", None) == "23505"
