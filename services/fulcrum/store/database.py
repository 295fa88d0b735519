"""The store: transactions over SQLite or PostgreSQL.

store = open_store("sqlite:////data/fulcrum.sqlite")
with store.write() as tx:
    tx.projects.add(project)
    tx.audit.append(user.id, "project.create", project.id)
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.store.engines import open_engine
from fulcrum.store.failures import translated
from fulcrum.store.migrating import current_revision, migrate, migrate_engine, newest_revision
from fulcrum.store.transaction import Transaction

__all__ = ["Store", "migrate", "open_store"]


class Store:
    """Transactions over one database. Safe to share between threads; each process opens its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: tuple[int, Connection] | None = None  # of the thread with that number
        self._reader: Engine = engine
        if engine.dialect.name == "postgresql":
            # One snapshot for the whole transaction, as SQLite gives it; a write is refused by the server.
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._writer = engine.execution_options(fulcrum_write=True)

    @contextmanager
    def reader_of_this_thread(self) -> Iterator[None]:
        """Inside, this thread reads a SQLite file through a connection of its own, and waits for nobody.

        Those of the pool may all be taken by writers that wait for each other. For one thread at a time.
        Raises ServiceUnavailable when the database cannot be reached.
        """
        if self._engine.dialect.name != "sqlite":
            yield
            return
        with translated():
            connection = self._reader.connect()
        with connection:
            self._kept = threading.get_ident(), connection
            try:
                yield
            finally:
                self._kept = None

    @property
    def answers_at_once(self) -> bool:
        """Whether a look at a few rows takes this thread less time than to hand it to another one."""
        return self._kept_here() is not None

    def _kept_here(self) -> Connection | None:
        if self._kept is None or self._kept[0] != threading.get_ident() or self._kept[1].in_transaction():
            return None
        return self._kept[1]

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent look. Raises ServiceUnavailable when the database cannot be reached."""
        kept = self._kept_here()
        if kept is not None:
            with translated(), kept.begin():
                yield Transaction(kept)
            return
        with translated(), self._reader.connect() as connection, connection.begin():
            yield Transaction(connection)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """All or nothing: committed at the end of the block, rolled back by an error.

        Keep it short and compute nothing inside: on SQLite writers wait for each other from the first line on.
        Raises ServiceUnavailable when the database cannot be reached or stayed busy.
        """
        with translated(), self._writer.connect() as connection, connection.begin():
            yield Transaction(connection)

    def migrate(self) -> None:
        """Bring the tables up to date."""
        migrate_engine(self._engine)

    def ping(self) -> None:
        """Raises ServiceUnavailable unless the database answers and has the schema of this code."""
        with translated(), self._reader.connect() as connection:
            revision = current_revision(connection)
        if revision != newest_revision():
            raise ServiceUnavailable(
                f"the database has the schema {revision!r}, this Fulcrum needs {newest_revision()!r}: "
                "`fulcrum gateway --prepare` brings it there"
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_store(url: str) -> Store:
    """The store at `sqlite:///FILE` or `postgresql+psycopg://...`; `migrate(url)` first.

    Raises InvalidSettings for another URL. Connects with the first transaction.
    """
    return Store(open_engine(url))
