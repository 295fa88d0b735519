"""Prepared statements give what SQLAlchemy's own way gives, on both databases."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from fulcrum.domain.identifiers import new_id, now
from fulcrum.store.jobs import JobRow
from fulcrum.store.people import ApiTokenRow, UserRow
from fulcrum.store.prepared import Prepared

USERS, TOKENS = UserRow.__table__, ApiTokenRow.__table__
A_USER = {"id": "usr_1", "created_at": now(), "version": 1, "deleted_at": None, "name": "Zoë 100 %s ?",
          "name_key": "zoë", "password_hash": None, "is_admin": True, "disabled": False}  # fmt: skip
A_TOKEN = {"id": "tok_1", "created_at": now(), "user_id": "usr_1", "name": "t", "scopes": ["read", "\x00ü"],
           "expires_at": now(), "last_used_at": None, "revoked_at": None, "secret_hash": "of-the-secret"}  # fmt: skip


def test_rows_come_back_as_sqlalchemy_gives_them(store):
    with store.write() as tx:
        for table, row in ((USERS, A_USER), (TOKENS, A_TOKEN)):
            Prepared(insert(table), tuple(row)).run(tx.connection, row)
            statement = select(table).where(table.c.id == bindparam("id"))
            found = Prepared(statement).first(tx.connection, {"id": row["id"]})
            assert found == row
            assert found == dict(tx.connection.execute(statement, {"id": row["id"]}).one()._mapping)
            assert Prepared(statement).first(tx.connection, {"id": new_id("usr")}) is None


def test_a_broken_rule_is_sqlalchemys_error_without_the_values(store):
    with store.write() as tx, tx.connection.begin_nested() as savepoint:
        with pytest.raises(IntegrityError) as caught:
            Prepared(insert(TOKENS), tuple(A_TOKEN)).run(tx.connection, A_TOKEN)  # there is no such user
        savepoint.rollback()
    assert "of-the-secret" not in str(caught.value)


def test_a_column_that_sqlalchemy_would_fill_in_is_refused(store):
    table = Table(
        "filled", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer, default=7)
    )
    with store.write() as tx, pytest.raises(AssertionError, match="defaults"):
        Prepared(insert(table), ("id",)).run(tx.connection, {"id": 1})
    assert all(c.default is None for c in JobRow.__table__.c)
