"""API tokens of the asker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.records import ApiToken, Scope


@dataclass(frozen=True)
class NewToken:
    """A token with its secret, which is never shown again and stays out of `repr`."""

    record: ApiToken
    token: str

    def __repr__(self) -> str:
        return f"NewToken(record={self.record!r}, token='fct_...')"


class Tokens(Bound[Side]):
    """`client.tokens`: the asker's API tokens."""

    @operation
    def create(
        self, name: str, *, scopes: Sequence[Scope] = ("read",), expires_at: datetime | None = None
    ) -> Flow[NewToken]:
        """A new token; its secret is in this answer only. `expires_at` needs a time zone."""
        body = given(
            name=name,
            scopes=list(scopes),
            expires_at=None if expires_at is None else to_json(expires_at),
        )
        return (yield from self._wire.ask(NewToken, "POST", path("tokens"), json=body))

    @listing(ApiToken)
    def list(self) -> Flow[None]:
        """The asker's tokens, without their secrets."""
        yield from self._wire.pages(ApiToken, path("tokens"))

    @operation
    def delete(self, token: Identified | str) -> Flow[None]:
        """Revokes a token at once."""
        yield from self._wire.do("DELETE", path("tokens", id_of(token)))
