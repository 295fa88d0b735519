"""Bodies of users."""

from typing import Annotated

from pydantic import BaseModel, Field

from fulcrum.domain.records import Role, User
from fulcrum.gateway.body import Body

UserName = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\s\x00-\x1f\x7f](.*[^\s\x00-\x1f\x7f])?$")
]


class UserBody(Body):
    """A person to invite."""

    name: UserName
    is_admin: bool = Field(default=False, description="Of the platform: may do everything everywhere.")
    project_id: str | None = Field(
        default=None, max_length=64, description="Make them a member of this project."
    )
    role: Role = Field(default="analyst", description="In that project.")


class UserPatch(Body):
    """What to change; fields that are left out stay."""

    name: UserName | None = None
    is_admin: bool | None = None
    disabled: bool | None = Field(default=None, description="A disabled user cannot log in or use tokens.")


class Invited(BaseModel):
    """A user and the link that lets them in."""

    user: User
    login_link: str = Field(
        description="Works once, for a day. Hand it to the person; it is never shown again."
    )
