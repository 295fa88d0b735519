"""Opening, failing and giving up."""

import dataclasses
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from fulcrum.domain.errors import (
    CorruptFile,
    InternalError,
    InvalidSettings,
    Overloaded,
    ServiceUnavailable,
    UnknownModel,
)
from fulcrum.domain.identifiers import new_id
from fulcrum.store import engines
from fulcrum.store.database import migrate, open_store
from fulcrum.store.engines import open_engine


def test_an_error_inside_the_block_undoes_all_of_it(world):
    def write_and_fail():
        with world.store.write() as tx:
            tx.models.add(world.another_model("half"))
            tx.models.update(world.model.id, name="renamed")
            tx.models.get("mdl_none")

    with pytest.raises(UnknownModel):
        write_and_fail()
    with world.store.read() as tx:
        assert tx.models.list(world.project.id).items == (world.model,)


def test_a_read_transaction_writes_nothing(world):
    with world.store.read() as tx:
        for write in (
            lambda: tx.models.add(world.another_model("new")),
            lambda: tx.models.update(world.model.id, name="renamed"),
            lambda: tx.models.delete(world.model.id),
            lambda: tx.tokens.revoke(world.token.id),
            lambda: tx.links.redeem("lnk_1"),
            lambda: tx.members.delete(world.project.id, world.user.id),
            lambda: tx.audit.append(None, "a", "b"),
        ):
            with pytest.raises(AssertionError, match="cannot write"):
                write()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://x/y",
        "postgresql+asyncpg://x/y",
    ],
)
def test_a_url_that_is_not_ours_is_refused(url):
    with pytest.raises(InvalidSettings, match="database"):
        open_store(url)


def test_a_refused_url_does_not_show_its_password():
    with pytest.raises(InvalidSettings) as raised:
        open_store("mysql://anne:secret@host/db")
    assert "secret" not in str(raised.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InvalidSettings, match="nowhere"):
        open_store(f"sqlite:///{tmp_path}/nowhere/store.sqlite")


def test_the_plain_url_of_postgresql_means_psycopg(postgres):
    url = postgres.url(postgres.new_database()).replace("postgresql+psycopg", "postgresql")
    migrate(url)
    with open_store(url) as store:
        store.ping()


def test_a_database_that_is_not_there_is_unavailable_and_may_come_back(tmp_path):
    with (
        open_store(f"postgresql+psycopg://nobody@/none?host={tmp_path}") as store,
        pytest.raises(ServiceUnavailable, match="does not answer") as raised,
        store.read(),
    ):
        pass
    assert raised.value.retry_after_s is not None
    assert str(tmp_path) not in str(raised.value)  # where the database is, is nobody's business


def test_a_bug_s_message_does_not_show_hashes_of_secrets(world):
    with pytest.raises(InternalError) as raised, world.store.write() as tx:
        tx.tokens.add(dataclasses.replace(world.token, id=new_id("tok"), name=None), "the-secret-hash")
    assert "api_tokens" in str(raised.value)
    assert "the-secret-hash" not in "".join(traceback.format_exception(raised.value))


def test_a_file_that_is_no_database_or_is_damaged_is_said_to_be_so(tmp_path, migrated_sqlite):
    for name, content in (
        ("text", b"not a database at all" * 100),
        ("damaged", migrated_sqlite.read_bytes()[:5000] + b"\xff" * 8192),
    ):
        (tmp_path / name).write_bytes(content)
        with open_store(f"sqlite:///{tmp_path}/{name}") as store:
            for use in (store.ping, store.migrate):
                with pytest.raises(CorruptFile, match="damaged"):
                    use()


def test_a_writer_that_waits_too_long_for_another_may_try_again(tmp_path, migrated_sqlite, monkeypatch):
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.05)
    url = f"sqlite:///{migrated_sqlite}"
    with (
        open_store(url) as store,
        store.write(),
        pytest.raises(ServiceUnavailable, match="locked") as raised,
        store.write(),
    ):
        pass
    assert raised.value.retry_after_s is not None


def test_readers_do_not_wait_for_a_writer(world):
    with world.store.write() as writing:
        writing.models.update(world.model.id, name="renamed")
        with world.store.read() as tx:
            assert tx.models.get(world.model.id).name == world.model.name


def test_more_askers_than_connections_are_told_to_come_back(url, monkeypatch):
    monkeypatch.setattr(engines, "POOL_SIZE", 1)
    monkeypatch.setattr(engines, "MAX_OVERFLOW", 0)
    monkeypatch.setattr(engines, "POOL_TIMEOUT_S", 0.05)
    with open_store(url) as store, store.read(), pytest.raises(Overloaded), store.read():
        pass


def test_a_connection_that_the_server_cut_is_replaced(postgres, migrated_postgres):
    database = postgres.new_database(migrated_postgres)
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    with open_store(postgres.url(database)) as store:
        store.ping()
        postgres.execute(cut)
        store.ping()

        def read_while_it_is_cut():
            with store.read() as tx:
                postgres.execute(cut)
                tx.users.list()

        with pytest.raises(ServiceUnavailable, match="does not answer"):
            read_while_it_is_cut()
        store.ping()


def test_sqlite_keeps_its_promises_about_keys_and_waiting(migrated_sqlite):
    engine = open_engine(f"sqlite:///{migrated_sqlite}")
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000}


def test_times_are_kept_in_the_database_s_own_type(world, url):
    image = dataclasses.replace(world.another_image(), id=new_id("img"))
    with world.store.write() as tx:
        tx.images.add(image)
    engine = open_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            query = sa.text("SELECT created_at AT TIME ZONE 'UTC' FROM images WHERE id = :id")
            found = connection.execute(query, {"id": image.id}).scalar_one().isoformat(sep=" ")
        else:
            query = sa.text("SELECT created_at FROM images WHERE id = :id")
            found = connection.execute(query, {"id": image.id}).scalar_one()
    engine.dispose()
    assert found == image.created_at.isoformat(sep=" ", timespec="microseconds").removesuffix("+00:00")


def test_a_reader_of_its_own_never_waits_for_the_pool(world, monkeypatch):
    """Nor for writers, which on SQLite wait for each other with a connection each."""
    store, at_once = world.store, world.store._engine.dialect.name == "sqlite"
    assert not store.answers_at_once
    with store.reader_of_this_thread(), ExitStack() as taken:
        assert store.answers_at_once == at_once
        with store.write() as tx:  # seen by the next look, and never written through the reader
            tx.models.add(world.another_model("new"))
        if at_once:
            for _ in range(engines.POOL_SIZE + engines.MAX_OVERFLOW - 1):
                taken.enter_context(store._engine.connect())
            monkeypatch.setattr(store._engine.pool, "_timeout", 0.01)
            with pytest.raises(sa.exc.TimeoutError):
                store._engine.connect()
        with store.read() as tx:
            assert len(tx.models.list(world.project.id).items) == 2
            assert not store.answers_at_once  # inside a look
            with pytest.raises(AssertionError, match="cannot write"):
                tx.models.delete(world.model.id)
        with pytest.raises(UnknownModel), store.read() as tx:
            tx.models.get("mdl_none")
        with ThreadPoolExecutor(1) as pool:  # another thread has none
            assert not pool.submit(lambda: store.answers_at_once).result(20)
        with store.read() as tx:
            assert tx.models.get(world.model.id) == world.model
    assert not store.answers_at_once
    with store.read() as tx:
        assert tx.models.get(world.model.id) == world.model
