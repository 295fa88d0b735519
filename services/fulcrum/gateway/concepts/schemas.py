"""Bodies and records of `/v1/saes/{sae_id}/concepts`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Shown, Text


class ConceptRecord(Shown):
    """What people and programs say a latent stands for."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    sae_id: str = Field(description="SAE whose latent it is.")
    latent: int = Field(description="Index of the latent.")
    created_by: str = Field(description="Id of the user who wrote this label.")
    created_at: datetime = Field(description="When this label was written.")
    label: str = Field("", description="The human word.")
    label_source: Literal["auto", "person"] = Field("person", description="Who found the label.")
    label_score: float | None = Field(None, description="How sure a program was.")
    note: str = Field("", description="Anything else.")
    history: list[dict[str, Any]] = Field(default=[], description="Earlier labels and notes, newest first.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class ConceptText(Body):
    """What a latent stands for."""

    label: Annotated[Text, Field(max_length=500)] = Field(description="The human word; empty takes it back.")
    label_source: Literal["auto", "person"] = Field("person", description="Who found the label.")
    label_score: float | None = Field(None, description="How sure a program was.")
    note: Text = Field("", description="Anything else.")
