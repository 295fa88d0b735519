"""SQLAlchemy engines for the two databases, with what each needs so that writers lose nothing."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from fulcrum.domain.errors import InvalidSettings, MissingDependency

BUSY_TIMEOUT_S = 30.0  # how long a writer waits for the others
POOL_SIZE, MAX_OVERFLOW, POOL_TIMEOUT_S = 10, 40, 10.0


def parse_url(url: str) -> URL:
    """The URL of a database. Raises InvalidSettings for anything but SQLite in a file and PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidSettings(
            "the database URL cannot be read: expected sqlite:///FILE or postgresql://..."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InvalidSettings(
            f"the database is {parsed.drivername!r}: expected sqlite:///FILE or postgresql+psycopg://..."
        )
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InvalidSettings(
            "a SQLite database in memory is not shared by threads and processes: name a file"
        )
    return parsed


def open_engine(url: str) -> Engine:
    """An engine; nothing is connected yet. Raises InvalidSettings, MissingDependency without psycopg."""
    parsed = parse_url(url)
    options: dict[str, Any] = {
        "pool_size": POOL_SIZE,
        "max_overflow": MAX_OVERFLOW,
        "pool_timeout": POOL_TIMEOUT_S,
        "hide_parameters": True,  # hashes of secrets have no place in messages and logs
    }
    if parsed.drivername == "sqlite":
        folder = Path(parsed.database or "").absolute().parent
        if not folder.is_dir():
            raise InvalidSettings(f"the folder of the SQLite database does not exist: {folder}")
        arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        engine = create_engine(parsed, connect_args=arguments, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10}, **options)
    except ModuleNotFoundError as error:
        raise MissingDependency("PostgreSQL needs psycopg: install fulcrum[postgres]") from error


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # Python's own BEGIN is deferred; ours is below
    connection.execute("PRAGMA foreign_keys=ON")
    # Survives the death of a process; after a power cut the file is whole, commits of the last seconds may be
    # gone. FULL would wait for the disk in each answer (measured: 1.9 instead of 0.7 ms); PostgreSQL does.
    connection.execute("PRAGMA synchronous=NORMAL")
    # The first switch to WAL needs the file alone and does not wait for others by itself.
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails, or overwrites what it has not seen
    # (5596 of 8629 updates were lost): writers take the lock at once.
    if connection.get_execution_options().get("fulcrum_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.connection.cursor().execute("BEGIN")  # cannot fail, and need not go the long way
