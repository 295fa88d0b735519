"""Bringing a database to the newest schema. The steps are in `migrations/versions`, oldest first.

To add one, change the tables and run `python -m fulcrum.store.drafting "what changes"`; then read what it wrote.
Steps only go up: who wants to go back restores a copy.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from fulcrum.domain.errors import InternalError, InvalidSettings
from fulcrum.store.engines import open_engine
from fulcrum.store.failures import translated
from fulcrum.store.transaction import METADATA

FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x66756C63  # "fulc": the number of our advisory lock

_ONE_AT_A_TIME = threading.Lock()


def migrate(url: str) -> None:
    """Bring the database to the newest schema; create it when empty.

    Several at once are safe: one works, the others wait and find it done. All steps or none.
    Raises InvalidSettings for a database of a newer Fulcrum, ServiceUnavailable when it cannot be reached.
    """
    engine = open_engine(url)
    try:
        migrate_engine(engine)
    finally:
        engine.dispose()


def migrate_engine(engine: Engine, folder: Path = FOLDER) -> None:
    """`migrate` on an engine that is open already."""
    if engine.dialect.name == "postgresql":
        with translated(), engine.execution_options(fulcrum_write=True).begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
            upgrade(connection, "head", folder)
    else:
        with suppress(OSError):  # what opening cannot do, connecting will say
            Path(engine.url.database or "").touch(mode=0o600)  # hashes of passwords will be in it
        with translated(), engine.execution_options(fulcrum_write=True).connect() as connection:
            _upgrade_sqlite(connection, folder)


def _upgrade_sqlite(connection: Connection, folder: Path) -> None:
    # A step that changes a column makes the table anew and drops the old one. With foreign keys on, that would be
    # refused or take the rows of other tables along; they can be switched outside a transaction only.
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            upgrade(connection, "head", folder)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise InternalError(
                    f"a migration broke {len(broken)} references, the first in {broken[0][0]}"
                )
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def current_revision(connection: Connection) -> str | None:
    """The revision of the database, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """The revision of this code."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def upgrade(connection: Connection, revision: str, folder: Path = FOLDER) -> None:
    """Run the missing steps up to `revision` inside the connection's transaction."""
    scripts = _scripts(folder)
    current = current_revision(connection)
    if current is not None and current not in set(revisions(folder)):
        raise InvalidSettings(
            f"the database has the schema {current!r}, which this Fulcrum does not know: it was made by a newer one"
        )

    def steps(at: Any, context: MigrationContext) -> Any:
        return scripts._upgrade_revs(revision, at)

    # Steps speak to Alembic's one global `op`.
    with (
        _ONE_AT_A_TIME,
        EnvironmentContext(Config(), scripts, fn=steps, destination_rev=revision) as environment,
    ):
        environment.configure(connection=connection, target_metadata=METADATA)
        environment.run_migrations()


def revisions(folder: Path = FOLDER) -> Iterator[str]:
    """All revisions, oldest first."""
    for script in reversed(list(_scripts(folder).walk_revisions())):
        yield script.revision


def _scripts(folder: Path = FOLDER) -> ScriptDirectory:
    return ScriptDirectory(str(folder))
