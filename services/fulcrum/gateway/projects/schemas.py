"""Bodies of projects and their members."""

from pydantic import Field

from fulcrum.domain.records import Role
from fulcrum.gateway.body import Body


class ProjectBody(Body):
    """A project to begin."""

    name: str = Field(min_length=1, max_length=200)


class MemberBody(Body):
    """What somebody may do in a project."""

    role: Role = Field(
        description="viewer reads; analyst works; reviewer also approves; admin also decides who may."
    )
