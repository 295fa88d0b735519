"""Columns that all tables share: names of constraints, times in UTC, what plain columns can hold."""

import re
import typing
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, MetaData
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import BigInteger, Double, String, TypeDecorator

from fulcrum.domain.errors import InvalidRequest

_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")
_BIGGEST = 2**63  # what both databases hold in a BIGINT


class Moment(TypeDecorator[datetime]):
    """An aware time, kept in UTC: `timestamptz` on PostgreSQL, text without offset on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC, without saying so on SQLite, whose texts then sort as the times do."""
        if value is None:
            return None
        at = value.astimezone(UTC)
        return at.replace(tzinfo=None) if dialect.name == "sqlite" else at

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back UTC whatever the zone of the database session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables; the constraints have the same names on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: typing.ClassVar[dict[Any, Any]] = {
        str: String(),
        int: BigInteger(),
        float: Double(),
        datetime: Moment(),
        # JSON, not JSONB: text as it was written, also with "\u0000" in it.
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Kept:
    """Columns of things that are made once and listed newest first."""

    id: Mapped[str] = mapped_column(primary_key=True, sort_order=-1)
    created_at: Mapped[datetime]


class Living(Kept):
    """Columns of things that change and can be deleted. A deleted row stays, hidden, and its name is free again."""

    version: Mapped[int]
    deleted_at: Mapped[datetime | None]


def checked(name: str, value: Any) -> Any:
    """`value`. Raises InvalidRequest for what PostgreSQL or SQLite cannot hold in a plain column."""
    if isinstance(value, str):
        if _UNKEEPABLE.search(value):
            raise InvalidRequest(
                f"{name} is {value[:80]!r}: text without NUL and unpaired surrogates is allowed"
            )
    elif isinstance(value, int) and not -_BIGGEST <= value < _BIGGEST:
        raise InvalidRequest(f"{name} is {value}: numbers of 64 bits are allowed")
    elif isinstance(value, datetime):
        assert value.tzinfo is not None, (
            f"{name} has no time zone: which hour it means depends on the machine"
        )
    return value
