"""Bodies and records of `/v1/saes/{sae_id}/concepts`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Shown, Text

LabelSource = Literal["auto", "person"]
LabelReview = Literal["proposed", "confirmed", "rejected"]


class EarlierLabel(Shown):
    """A label that a latent had."""

    label: str = Field(description="The human word; empty where it was taken back.")
    label_source: LabelSource = Field(description="Who found it.")
    label_score: float | None = Field(description="How sure a program was.")
    note: str = Field(description="What its author said about it.")
    created_by: str = Field(description="Id of the user who wrote it.")
    created_at: datetime = Field(description="When it was written.")
    version: int = Field(description="Version of the concept when it ended.")
    review: LabelReview | None = Field(
        None,
        description="What became of a person's label; `proposed` where it was replaced before anybody decided.",
    )
    reviewed_by: str | None = Field(None, description="Id of the user who decided.")
    reviewed_at: datetime | None = Field(None, description="When they decided.")
    review_note: str = Field("", description="What they said about it.")


class ConceptRecord(Shown):
    """What people and programs say a latent stands for."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    sae_id: str = Field(description="SAE whose latent it is.")
    latent: int = Field(description="Index of the latent.")
    created_by: str = Field(description="Id of the user who wrote this label.")
    created_at: datetime = Field(description="When this label was written.")
    label: str = Field("", description="The human word.")
    label_source: LabelSource = Field("person", description="Who found the label.")
    label_score: float | None = Field(None, description="How sure a program was.")
    note: str = Field("", description="Anything else.")
    review: LabelReview | None = Field(
        None,
        description="`proposed` until somebody other than the author decides; null for a program's label.",
    )
    reviewed_by: str | None = Field(None, description="Id of the user who confirmed it.")
    reviewed_at: datetime | None = Field(None, description="When it was confirmed.")
    review_note: str = Field("", description="What the reviewer said about it.")
    history: list[EarlierLabel] = Field(default=[], description="Earlier and rejected labels, newest first.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class ConceptText(Body):
    """What a latent stands for."""

    label: Annotated[Text, Field(max_length=500)] = Field(description="The human word; empty takes it back.")
    label_source: LabelSource = Field("person", description="Who found the label.")
    label_score: float | None = Field(None, description="How sure a program was.")
    note: Text = Field("", description="Anything else.")


class LabelDecision(Body):
    """What a reviewer thinks of a proposed label."""

    decision: Literal["confirm", "reject"] = Field(description="Whether the label stays.")
    note: Text = Field("", description="Why; kept with the label.")
