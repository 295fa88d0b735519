"""Bodies of API tokens."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, Strict

from fulcrum.domain.records import ApiToken, Scope
from fulcrum.gateway.body import Body


class TokenBody(Body):
    """A token to make."""

    name: str = Field(min_length=1, max_length=200, description="What it is for.")
    scopes: list[Scope] = Field(
        default=["read"],
        min_length=1,
        max_length=3,
        description="What it may do, each with the ones before it: read, write, admin. Your roles still limit it.",
    )
    expires_at: Annotated[datetime, Strict(False)] | None = Field(
        default=None, description="With a time zone; never, by default."
    )


class NewToken(BaseModel):
    """The only answer that shows the secret."""

    record: ApiToken
    token: str = Field(description="`fct_<id>_<secret>`: keep it, it is never shown again.")
