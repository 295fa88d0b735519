"""Bodies and records of `/v1/sessions`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Id, Name, Shown, Text


class SessionRecord(Shown):
    """A person's log of what they asked and expected."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    title: str = Field(description="What the session is about.")
    created_by: str = Field(description="Id of the user whose log it is.")
    created_at: datetime = Field(description="When it was begun.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class SessionEntry(Shown):
    """One line of the log; never changed."""

    id: str = Field(description="Id.")
    session_id: str = Field(description="Session that it belongs to.")
    kind: Literal["hypothesis", "note", "result"] = Field(
        description="`result` lines are written by the service with every answer."
    )
    content: dict[str, Any] = Field(description="`text` of a hypothesis or note; `kind` of a result.")
    created_by: str = Field(description="Id of the user who wrote it.")
    created_at: datetime = Field(description="When it was written.")
    result_id: str | None = Field(None, description="Stored result that the line is about.")
    image_id: str | None = Field(None, description="Image that the line is about.")


class NewSession(Body):
    """A session to begin."""

    title: Name = Field(description="What the session is about.")
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class SessionChange(Body):
    """What can change about a session: its title. Lines stay as they were written."""

    title: Name = Field(description="New title.")


class NewEntry(Body):
    """A line to write."""

    kind: Literal["hypothesis", "note"] = Field(description="What the asker expects, or anything else.")
    text: Text = Field(min_length=1, description="The line.")
    image_id: Id | None = Field(None, description="Image that the line is about.")
    result_id: Id | None = Field(None, description="Stored result that the line is about.")
