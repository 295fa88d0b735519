"""Each test runs on SQLite and on a real PostgreSQL, on a migrated database with nothing in it."""

import shutil

import pytest

from fulcrum.store.audit import FIRST_HASH
from fulcrum.store.database import migrate, open_store
from fulcrum.store.transaction import METADATA

from .postgres_server import PostgresServer
from .samples import World

DATABASES = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgres():
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres):
    name = postgres.new_database()
    migrate(postgres.url(name))
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory):
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=DATABASES)
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    postgres = request.getfixturevalue("postgres")
    return postgres.url(postgres.new_database())


@pytest.fixture(scope="session")
def used_postgres(postgres, migrated_postgres):
    return postgres.new_database(migrated_postgres)


@pytest.fixture(params=DATABASES)
def url(request, tmp_path):
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "store.sqlite")
        return f"sqlite:///{path}"
    postgres = request.getfixturevalue("postgres")
    database = request.getfixturevalue("used_postgres")
    # Emptied, because a new database for each test takes ten times as long.
    tables = ", ".join(sorted(set(METADATA.tables) - {"audit_head"}))
    postgres.execute(f"TRUNCATE {tables}", database)
    postgres.execute(f"UPDATE audit_head SET sequence = 0, hash = '{FIRST_HASH}'", database)
    return postgres.url(database)


@pytest.fixture
def store(url):
    with open_store(url) as store:
        yield store


@pytest.fixture
def world(store):
    """A store with one of everything in it."""
    return World(store)
