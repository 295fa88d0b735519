"""Bodies and records of `/v1/datasets`."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Id, Name, Prompt, Shown, Text


class DatasetRecord(Shown):
    """A data set."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    name: str = Field(description="Name in the project.")
    created_by: str = Field(description="Id of the user who made it.")
    created_at: datetime = Field(description="When it was made.")
    description: str = Field("", description="What it holds and where it came from.")
    state: Literal["empty", "importing", "ready", "failed"] = Field(
        "empty", description="`ready` once its images were imported."
    )
    digest: str | None = Field(None, description="Hash of the content, once imported.")
    n_images: int = Field(0, description="Images, once imported.")
    class_names: list[str] = Field(default=[], description="Classes of its labels.")
    n_by_split: dict[str, int] = Field(default={}, description="Images of each split.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class NewDataset(Body):
    """A data set to make; it is empty until images are imported."""

    name: Name = Field(description="Name in the project.")
    description: Text = Field("", description="What it holds and where it came from.")
    class_names: list[Prompt] = Field(
        default=[], max_length=10_000, description="Classes of its labels, all different."
    )
    project_id: Id | None = Field(None, description="Left out: the asker's default project.")


class DatasetChange(Body):
    """What can change about a data set; its content is changed by an import alone."""

    name: Name | None = Field(None, description="New name in the project.")
    description: Text | None = Field(None, description="New description.")
