"""From nothing to the newest schema, which is that of the models."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from fulcrum.domain.errors import InvalidRequest, InvalidSettings, ServiceUnavailable
from fulcrum.store import drafting, migrating
from fulcrum.store.columns import Moment
from fulcrum.store.database import migrate, open_store
from fulcrum.store.engines import open_engine
from fulcrum.store.transaction import METADATA

from .samples import World
from .test_concurrency import SERVICES

POSTGRES_SCHEMA = """
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, collation_name, is_identity
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', '', ''
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""


def schema_of(connection):
    """Everything that the database itself says about its tables, without Alembic's own."""
    if connection.dialect.name == "postgresql":
        rows = connection.execute(sa.text(POSTGRES_SCHEMA)).all()
        return sorted(tuple(map(str, r)) for r in rows if "alembic_version" not in str(r))
    found = []
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    for table in set(tables) - {"alembic_version"}:
        for pragma in ("table_xinfo", "foreign_key_list"):
            rows = connection.exec_driver_sql(f"PRAGMA {pragma}({table})").all()
            found += [(pragma, table, *map(str, r[1:])) for r in rows]
    indexes = connection.exec_driver_sql("SELECT tbl_name, sql FROM sqlite_master WHERE type = 'index'").all()
    found += [("index", *map(str, r)) for r in indexes if r[0] != "alembic_version"]
    names = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
    for name, sql in names:  # SQLite keeps the names of constraints in the statement only
        found += [("named", name, w) for w in sql.split() if w.startswith(("pk_", "fk_", "uq_"))]
    return sorted(f for f in found if f[1] != "alembic_version")


def writing(engine):
    return engine.execution_options(fulcrum_write=True).begin()


@pytest.fixture
def empty(empty_url):
    engine = open_engine(empty_url)
    yield engine
    engine.dispose()


@pytest.fixture
def made_from_models(empty, empty_url, tmp_path, request):
    """What the models themselves would create, in another empty database."""
    if empty.dialect.name == "sqlite":
        url = f"sqlite:///{tmp_path / 'models.sqlite'}"
    else:
        postgres = request.getfixturevalue("postgres")
        url = postgres.url(postgres.new_database())
    engine = open_engine(url)
    with writing(engine) as connection:
        METADATA.create_all(connection)
        schema = schema_of(connection)
    engine.dispose()
    return schema


def test_the_migrated_schema_is_that_of_the_models(empty, empty_url, made_from_models):
    migrate(empty_url)
    with empty.connect() as connection:
        assert schema_of(connection) == made_from_models
        assert len(made_from_models) > 150
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_each_step_alone_leads_to_the_same_schema(empty, made_from_models):
    steps = list(migrating.revisions())
    for revision in steps:
        with writing(empty) as connection:
            migrating.upgrade(connection, revision)
            assert migrating.current_revision(connection) == revision
    with empty.connect() as connection:
        assert schema_of(connection) == made_from_models
    assert steps[-1] == migrating.newest_revision()


def test_migrating_again_changes_nothing_and_keeps_what_is_there(empty_url):
    migrate(empty_url)
    with open_store(empty_url) as store:
        world = World(store)
        store.migrate()
        migrate(empty_url)
        with store.read() as tx:
            assert tx.users.get(world.user.id) == world.user
            assert tx.audit.verify()


def test_several_who_migrate_at_once_do_not_disturb_each_other(empty_url):
    code = (
        "import sys; from fulcrum.store.database import migrate; sys.stdin.readline(); migrate(sys.argv[1])"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, empty_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(SERVICES)},
        )
        for _ in range(3)
    ]
    with ThreadPoolExecutor() as pool:
        errors = [e for _, e in pool.map(lambda p: p.communicate("go\n"), started)]
    assert [p.returncode for p in started] == [0, 0, 0], errors
    with open_store(empty_url) as store:
        store.ping()
        World(store)


def test_a_step_that_fails_leaves_the_database_as_it_was(empty, empty_url):
    with writing(empty) as connection:
        connection.exec_driver_sql("CREATE TABLE session_entries (mine INTEGER)")
        before = schema_of(connection)
    with pytest.raises(sa.exc.DBAPIError, match="session_entries"):
        migrate(empty_url)
    with empty.connect() as connection:
        assert schema_of(connection) == before
        assert migrating.current_revision(connection) is None


def test_a_database_of_a_newer_fulcrum_is_left_alone(empty, empty_url):
    migrate(empty_url)
    with writing(empty) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidSettings, match=r"'9999'.* newer"):
        migrate(empty_url)
    with open_store(empty_url) as store, pytest.raises(ServiceUnavailable, match="'9999'"):
        store.ping()


def test_a_store_that_was_never_migrated_says_so(empty_url):
    with open_store(empty_url) as store, pytest.raises(ServiceUnavailable, match="gateway --prepare"):
        store.ping()


def test_the_steps_lie_inside_the_package_and_form_one_line(tmp_path):
    assert migrating.FOLDER.is_relative_to(SERVICES / "fulcrum" / "store")
    # As in an installed package under a folder with an odd name.
    copy = shutil.copytree(migrating.FOLDER, tmp_path / "50% odd" / "migrations")
    assert list(migrating.revisions(copy)) == list(migrating.revisions())


@pytest.fixture
def with_next_step(tmp_path):
    """The migrations and one more, which makes the table of users anew, as a changed column does on SQLite."""
    folder = shutil.copytree(migrating.FOLDER, tmp_path / "migrations")
    last = list(migrating.revisions())[-1]
    (folder / "versions" / "next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = 'next'\ndown_revision = {last!r}\nbranch_labels = depends_on = None\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('users', recreate='auto') as batch:\n"
        "        batch.alter_column('name', type_=sa.Text(), existing_nullable=False)\n"
    )
    return folder


def test_a_step_that_makes_a_table_anew_keeps_what_points_to_it(empty, empty_url, with_next_step):
    migrate(empty_url)
    with open_store(empty_url) as store:
        world = World(store)
        migrating.migrate_engine(empty, with_next_step)
        with store.read() as tx:
            assert tx.users.get(world.user.id) == world.user
            assert tx.images.get(world.image.id) == world.image
            assert tx.members.role(world.project.id, world.user.id) == "admin"
    with empty.connect() as connection:
        assert migrating.current_revision(connection) == "next"
        if empty.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


def test_the_file_of_a_new_database_is_closed_to_others(tmp_path):
    migrate(f"sqlite:///{tmp_path}/store.sqlite")
    assert (tmp_path / "store.sqlite").stat().st_mode & 0o077 == 0


def test_a_drafted_step_leads_to_the_changed_tables(tmp_path, monkeypatch):
    folder = shutil.copytree(migrating.FOLDER, tmp_path / "migrations")
    with pytest.raises(InvalidRequest, match="change them first"):
        drafting.draft("nothing", folder)
    changed = sa.MetaData(naming_convention=METADATA.naming_convention)
    for table in METADATA.tables.values():
        table.to_metadata(changed)
    sa.Table(
        "errands",
        changed,
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
    )
    changed.tables["users"].append_column(sa.Column("email", sa.String))
    monkeypatch.setattr(drafting, "METADATA", changed)
    path = drafting.draft("Errands, and addresses", folder)
    assert path.name.endswith("_errands_and_addresses.py")
    assert "fulcrum" not in path.read_text()
    engine = open_engine(f"sqlite:///{tmp_path}/store.sqlite")
    migrating.migrate_engine(engine, folder)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), changed) == []
    engine.dispose()
