"""Bodies of logging in and out and of one's own account."""

from typing import Annotated

from pydantic import Field, SecretStr

from fulcrum.gateway.auth.passwords import MAX_LENGTH, MIN_LENGTH
from fulcrum.gateway.body import Body

NewPassword = Annotated[SecretStr, Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH)]


class LoginBody(Body):
    """Name and password."""

    name: str = Field(max_length=200)
    password: SecretStr = Field(max_length=MAX_LENGTH)


class RedeemBody(Body):
    """A login link's secret part."""

    link: SecretStr = Field(max_length=200, description="What stands behind `?link=` in the login link.")


class PasswordBody(Body):
    """A change of one's own password."""

    new_password: NewPassword
    current_password: SecretStr | None = Field(
        default=None, max_length=MAX_LENGTH, description="Needed when there is one."
    )
