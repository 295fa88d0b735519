"""Users and how they prove who they are: passwords, API tokens, logins, one-time links.

Secrets come in and go out as hashes only; making and comparing them is the gateway's work.
"""

import unicodedata
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, bindparam, delete, or_, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownToken, UnknownUser
from fulcrum.domain.identifiers import now
from fulcrum.domain.records import ApiToken, Login, User
from fulcrum.store.columns import Base, Kept, Living, checked
from fulcrum.store.prepared import Prepared
from fulcrum.store.repository import Access, Listing, LivingRepository

TOUCH_EVERY = timedelta(minutes=1)  # a time of last use need not be finer, and each is a write
_ALIVE = text("deleted_at IS NULL")


class UserRow(Living, Base):
    """A person; `name_key` makes "Anna" and "anna" one name."""

    __tablename__ = "users"
    __table_args__ = (
        Index("uq_users_name_key", "name_key", unique=True, sqlite_where=_ALIVE, postgresql_where=_ALIVE),
        Index(None, "created_at", "id"),
    )
    name: Mapped[str]
    name_key: Mapped[str]
    password_hash: Mapped[str | None]
    is_admin: Mapped[bool]
    disabled: Mapped[bool]


class ApiTokenRow(Kept, Base):
    """An API token with the hash of its secret."""

    __tablename__ = "api_tokens"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    scopes: Mapped[list[Any]]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    secret_hash: Mapped[str]


class LoginRow(Kept, Base):
    """A browser session with the hash of its secret."""

    __tablename__ = "logins"
    __table_args__ = (Index(None, "user_id", "created_at", "id"), Index(None, "expires_at"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    expires_at: Mapped[datetime]
    secret_hash: Mapped[str]


class LinkRow(Base):
    """A login link that works once."""

    __tablename__ = "login_links"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    secret_hash: Mapped[str]
    expires_at: Mapped[datetime]
    redeemed_at: Mapped[datetime | None]


def name_key(name: str) -> str:
    """What two spellings of the same user name share."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class Users(LivingRepository[User]):
    """People. Names are unique without regard to case."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, UserRow, User, UnknownUser, "user")

    def _values(self, fields: Any) -> dict[str, Any]:
        values = super()._values(fields)
        if "name" in values:
            values["name_key"] = name_key(values["name"])
        return values

    def by_name(self, name: str) -> User | None:
        """The user of this name, None if there is none."""
        return self._one(self._table.c.name_key == name_key(checked("name", name)))

    def set_password_hash(self, id: str, password_hash: str | None) -> None:
        """Replace the password; None leaves the user without one. Raises UnknownUser."""
        self._change(id, None, {"password_hash": password_hash})

    def password_hash(self, name: str) -> tuple[User, str] | None:
        """The user of this name and the hash; None when there is no such user or no password."""
        c = self._table.c
        row = self._connection.execute(
            select(self._table).where(c.name_key == name_key(checked("name", name)), *self._alive())
        ).first()
        if row is None or row.password_hash is None:
            return None
        return self._from_row(row), row.password_hash


@lru_cache(maxsize=1)
def _usable_token() -> Prepared:
    c = ApiTokenRow.__table__.c
    not_expired = or_(c.expires_at.is_(None), c.expires_at > bindparam("at"))
    return Prepared(
        select(ApiTokenRow.__table__).where(c.id == bindparam("id"), c.revoked_at.is_(None), not_expired)
    )


@lru_cache(maxsize=1)
def _usable_login() -> Prepared:
    c = LoginRow.__table__.c
    return Prepared(select(LoginRow.__table__).where(c.id == bindparam("id"), c.expires_at > bindparam("at")))


class Tokens(Listing[ApiToken]):
    """API tokens."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ApiTokenRow, ApiToken, UnknownToken, "token")

    def add(self, record: ApiToken, secret_hash: str) -> ApiToken:
        """Keep a token with the hash of its secret. Raises AlreadyExists, NotFound for an unknown user."""
        assert secret_hash, "a token without a secret would open to anybody"
        self._insert(self._values_of(record) | {"secret_hash": secret_hash}, self._describe(record))
        return record

    def by_id(self, id: str) -> tuple[ApiToken, str] | None:
        """A usable token and the hash of its secret; None for one that is unknown, revoked or expired."""
        asked = {"id": checked("token", id), "at": now()}
        columns = _usable_token().first(self._connection, asked)
        return None if columns is None else (self._from_columns(columns), columns["secret_hash"])

    def touch(self, id: str) -> None:
        """Note that it was used, to the minute."""
        c = self._table.c
        at = now()
        stale = or_(c.last_used_at.is_(None), c.last_used_at < at - TOUCH_EVERY)
        self._write(update(self._table).where(c.id == id, stale).values(last_used_at=at))

    def revoke(self, id: str) -> ApiToken:
        """Make it useless for ever; again is no error. Raises UnknownToken."""
        c = self._table.c
        self._write(
            update(self._table)
            .where(c.id == checked("token", id), c.revoked_at.is_(None))
            .values(revoked_at=now())
        )
        return self.get(id)


class Logins(Listing[Login]):
    """Browser sessions."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, LoginRow, Login, UnknownToken, "login")

    def add(self, record: Login, secret_hash: str) -> Login:
        """Keep a login with the hash of its secret, and forget expired ones."""
        assert secret_hash, "a login without a secret would open to anybody"
        self._write(delete(self._table).where(self._table.c.expires_at <= now()))
        self._insert(self._values_of(record) | {"secret_hash": secret_hash}, self._describe(record))
        return record

    def by_id(self, id: str) -> tuple[Login, str] | None:
        """A usable login and the hash of its secret; None for one that is unknown, ended or expired."""
        asked = {"id": checked("login", id), "at": now()}
        columns = _usable_login().first(self._connection, asked)
        return None if columns is None else (self._from_columns(columns), columns["secret_hash"])

    def revoke(self, id: str) -> None:
        """End it; again is no error."""
        self._write(delete(self._table).where(self._table.c.id == checked("login", id)))

    def revoke_of(self, user_id: str, except_id: str | None = None) -> int:
        """End all logins of a user, but for one (after a change of password); how many ended."""
        c = self._table.c
        statement = delete(self._table).where(c.user_id == user_id)
        if except_id is not None:
            statement = statement.where(c.id != except_id)
        return int(self._write(statement).rowcount)


class Links(Access):
    """Login links."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, LinkRow, "login link")

    def add(self, id: str, user_id: str, secret_hash: str, expires_at: datetime) -> None:
        """Keep a link; expired ones and the user's earlier ones are worth nothing from now on.

        Raises AlreadyExists, NotFound for an unknown user.
        """
        assert secret_hash, "a link without a secret would open to anybody"
        c = self._table.c
        self._write(delete(self._table).where(or_(c.expires_at <= now(), c.user_id == user_id)))
        values = {"id": id, "user_id": user_id, "secret_hash": secret_hash}
        values["expires_at"] = checked("expires_at", expires_at)
        self._insert(values, f"login link {id!r}")

    def redeem(self, id: str) -> tuple[str, str] | None:
        """User and hash of the secret, once; None when unknown, used or expired.

        Compare the secret inside the same transaction and raise when it is wrong: the rollback leaves the link whole.
        """
        c = self._table.c
        at = now()
        row = self._write(
            update(self._table)
            .where(c.id == checked("link", id), c.redeemed_at.is_(None), c.expires_at > at)
            .values(redeemed_at=at)
            .returning(c.user_id, c.secret_hash)
        ).first()
        return None if row is None else (row.user_id, row.secret_hash)
