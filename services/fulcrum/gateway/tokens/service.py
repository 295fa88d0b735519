"""One's own API tokens."""

from datetime import UTC, datetime

from fulcrum.domain.errors import InvalidRequest, UnknownToken
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ApiToken, Page, Scope
from fulcrum.gateway.asking import SCOPES, Asker
from fulcrum.gateway.auth import secrets
from fulcrum.gateway.deps import PageParams
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def create(
    store: Store, asker: Asker, name: str, scopes: list[Scope], expires_at: datetime | None
) -> tuple[ApiToken, str]:
    """A token and its secret text. Raises Forbidden for more than the asking token has, InvalidRequest."""
    for scope in scopes:
        asker.require_scope(scope)
    asker.require_scope("write")
    if expires_at is not None:
        if expires_at.tzinfo is None:
            raise InvalidRequest(
                f"expires_at is {expires_at.isoformat()}: a time zone is missing, such as +00:00"
            )
        try:
            expires_at = expires_at.astimezone(UTC)
        except OverflowError:
            raise InvalidRequest(
                f"expires_at is {expires_at.isoformat()}: beyond the year 9999 in UTC; leave it out for never"
            ) from None
        if expires_at <= now():
            raise InvalidRequest(f"expires_at is {expires_at.isoformat()}, which is in the past")
    with store.write() as tx:
        record, text = issue(tx, asker.user.id, name, tuple(s for s in SCOPES if s in scopes), expires_at)
        tx.audit.append(
            asker.user.id, "token.create", record.id, {"name": name, "scopes": list(record.scopes)}
        )
    return record, text


def issue(
    tx: Transaction, user_id: str, name: str, scopes: tuple[Scope, ...], expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """A token of a user and its secret text, within a transaction."""
    secret = secrets.new_secret()
    record = ApiToken(new_id("tok"), user_id, name, scopes, now(), expires_at)
    tx.tokens.add(record, secrets.hash_of(secret))
    return record, secrets.token_text(record.id, secret)


def list_own(store: Store, asker: Asker, page: PageParams) -> Page[ApiToken]:
    """The asker's tokens, also those that are of no use any more."""
    with store.read() as tx:
        return tx.tokens.list(user_id=asker.user.id, limit=page.limit, cursor=page.cursor)


def revoke(store: Store, asker: Asker, token_id: str) -> None:
    """Makes a token useless for ever. Raises UnknownToken for somebody else's, unless the asker runs the platform."""
    with store.write() as tx:
        token = tx.tokens.get(token_id)
        if token.user_id != asker.user.id:
            if not asker.user.is_admin:
                raise UnknownToken(f"no token with the id {token_id[:80]!r}")
            asker.require_platform_admin()
        if token.id != asker.token_id:  # a token may always end itself: it leaked, perhaps
            asker.require_scope("write")
        tx.tokens.revoke(token_id)
        tx.audit.append(asker.user.id, "token.revoke", token_id, {"name": token.name})
