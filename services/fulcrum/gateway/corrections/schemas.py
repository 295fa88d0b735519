"""Bodies and records of `/v1/corrections`."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Correction, Id, Name, Shown, Text


class CorrectionRecord(Shown):
    """A named correction; its content lives in its versions."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    name: str = Field(description="Name in the project.")
    created_by: str = Field(description="Id of the user who saved it.")
    created_at: datetime = Field(description="When it was saved first.")
    description: str = Field("", description="What it is for.")
    state: Literal["draft", "evaluated", "in_review", "approved", "rejected", "superseded"] = Field(
        "draft", description="How far its review is."
    )
    model_id: str | None = Field(None, description="Registered model that it was made for.")
    sae_id: str | None = Field(None, description="Registered SAE that it was made for.")
    latest: int = Field(1, description="Number of the newest version.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class CorrectionVersion(Shown):
    """An immutable version of a correction."""

    correction_id: str = Field(description="Correction that it belongs to.")
    number: int = Field(description="Counts from 1.")
    sha256: str = Field(description="Hash of the canonical JSON (without `origin`): the version's identity.")
    correction: Correction = Field(description="The content.")
    created_by: str = Field(description="Id of the user who saved it.")
    created_at: datetime = Field(description="When it was saved.")
    note: str = Field("", description="What changed, and why.")


class NewCorrection(Body):
    """A correction to save as version 1."""

    name: Name = Field(description="Name in the project.")
    correction: Correction = Field(description="The content.")
    description: Text = Field("", description="What it is for.")
    model_id: Id | None = Field(None, description="Registered model that it was made for.")
    sae_id: Id | None = Field(None, description="Registered SAE that it was made for.")
    note: Text = Field("", description="Note of version 1.")
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class CorrectionChange(Body):
    """What can change about a correction without a new version."""

    name: Name | None = Field(None, description="New name in the project.")
    description: Text | None = Field(None, description="New description.")


class NewVersion(Body):
    """A new version."""

    correction: Correction = Field(description="The content; it must differ from the newest version's.")
    note: Text = Field("", description="What changed, and why.")
