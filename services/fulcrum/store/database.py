"""The store: transactions over SQLite or PostgreSQL.

store = open_store("sqlite:////data/fulcrum.sqlite")
with store.write() as tx:
    tx.projects.add(project)
    tx.audit.append(user.id, "project.create", project.id)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fulcrum.domain.errors import InvalidRequest, Overloaded, ServiceUnavailable
from fulcrum.store.engines import open_engine
from fulcrum.store.migrating import current_revision, migrate, migrate_engine, newest_revision
from fulcrum.store.transaction import Transaction

__all__ = ["Store", "migrate", "open_store"]

RETRY_AFTER_S = 1.0


class Store:
    """Transactions over one database. Safe to share between threads; each process opens its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader: Engine = engine
        if engine.dialect.name == "postgresql":
            # One snapshot for the whole transaction, as SQLite gives it; a write is refused by the server.
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._writer = engine.execution_options(fulcrum_write=True)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent look. Raises ServiceUnavailable when the database cannot be reached."""
        with _translated(), self._reader.connect() as connection, connection.begin():
            yield Transaction(connection)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """All or nothing: committed at the end of the block, rolled back by an error.

        Keep it short and compute nothing inside: on SQLite writers wait for each other from the first line on.
        Raises ServiceUnavailable when the database cannot be reached or stayed busy.
        """
        with _translated(), self._writer.connect() as connection, connection.begin():
            yield Transaction(connection)

    def migrate(self) -> None:
        """Bring the tables up to date."""
        with _translated():
            migrate_engine(self._engine)

    def ping(self) -> None:
        """Raises ServiceUnavailable unless the database answers and has the schema of this code."""
        with _translated(), self._reader.connect() as connection:
            revision = current_revision(connection)
        if revision != newest_revision():
            raise ServiceUnavailable(
                f"the database has the schema {revision!r}, this Fulcrum needs {newest_revision()!r}: migrate it"
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


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Overloaded("all connections to the database are in use", RETRY_AFTER_S) from error
    except (OperationalError, InterfaceError) as error:
        reason = str(error.orig).strip().splitlines()[:1]
        raise ServiceUnavailable(
            f"the database does not answer: {' '.join(reason)}", RETRY_AFTER_S
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ServiceUnavailable("the connection to the database was lost", RETRY_AFTER_S) from error
        if getattr(error.orig, "sqlstate", "")[:2] == "22":  # data exceptions: out of range, bad text
            raise InvalidRequest(f"the database cannot hold a value: {error.orig}") from error
        raise
