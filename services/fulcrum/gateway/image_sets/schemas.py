"""Bodies and records of `/v1/image-sets`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.domain.image_sets import MAX_IMAGES
from fulcrum.gateway.body import Body
from fulcrum.gateway.evaluations.schemas import FlipFilter
from fulcrum.gateway.schemas import Id, Name, Shown, Text

ImageSetPurpose = Literal["slice", "invariant"]
ImageIds = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=4000)]], Field(max_length=MAX_IMAGES)
]


class ImageSetRecord(Shown):
    """Images of a data set under a name."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    dataset_id: str = Field(description="Data set that the images are of.")
    name: str = Field(description="Name for the data set; of a slice it is a tag.")
    purpose: ImageSetPurpose = Field(
        description="A slice to judge beside others, or images whose answers may not change."
    )
    sha256: str = Field(description="Artifact with the ids, sorted: what a validation freezes.")
    n_images: int = Field(description="How many.")
    created_by: str = Field(description="Id of the user who made it.")
    created_at: datetime = Field(description="When it was made.")
    note: str = Field("", description="Why these.")
    n_by_split: dict[str, int] = Field(
        default={}, description="Images of each split, when they were chosen last."
    )
    version: int = Field(1, description="Changes so far, and the ETag.")


class NewImageSet(Body):
    """Images to keep together."""

    dataset_id: Id = Field(description="Data set that the images are of.")
    name: Name = Field(description="Name for the data set.")
    purpose: ImageSetPurpose = Field(
        "slice", description="A slice (a tag is one), or a list that must keep its answers."
    )
    note: Text = Field("", description="Why these.")
    image_ids: ImageIds = Field(default=[], description="Ids of images as the data set has them.")
    flips: FlipFilter | None = Field(None, description="Images of a flip board, besides `image_ids`.")


class ImageSetChange(Body):
    """What changes about a set."""

    name: Name | None = Field(None, description="New name.")
    purpose: ImageSetPurpose | None = Field(None, description="New purpose.")
    note: Text | None = Field(None, description="New note.")
    add: ImageIds | None = Field(None, description="Images that come to it; those in it stay as they are.")
    add_flips: FlipFilter | None = Field(None, description="Images of a flip board that come to it.")
    remove: ImageIds | None = Field(None, description="Images that leave it.")
