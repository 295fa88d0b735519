"""Bodies of what is done with a suggestion."""

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Id, Name, Text


class SavedSuggestion(Body):
    """Where the correction that a job found is kept: under a new name, or as a version of a correction."""

    name: Name | None = Field(None, description="Name of a new correction.")
    correction_id: Id | None = Field(
        None, description="Correction that gets another version; either this or `name`."
    )
    description: Text = Field("", description="What a new correction is for.")
    note: Text = Field("", description="Note of the version.")
