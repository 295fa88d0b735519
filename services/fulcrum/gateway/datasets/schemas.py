"""Bodies and records of `/v1/datasets`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.gateway.body import Body
from fulcrum.gateway.schemas import Id, Name, Prompt, Seed, Shown, Text


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
    manifest_sha256: str | None = Field(None, description="Artifact with its samples, once imported.")
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


class ImportQuestion(Body):
    """Where the images are."""

    source: Annotated[
        str, StringConstraints(min_length=1, max_length=500, pattern=r"^folder:[^\x00-\x1f\x7f]+$")
    ] = Field(description="`folder:NAME/sub` below a folder that the administrator allowed for workers.")
    format: Name | None = Field(None, description="Format of the data set; by default it is recognised.")
    new_splits: bool = Field(False, description="Divide the images anew whatever splits they have.")
    seed: Seed = Field(0, description="Of the new splits.")


class DatasetImage(Shown):
    """An image of a data set."""

    id: str = Field(description="Its id in the data set.")
    number: int = Field(description="Its place in this content of the data set, from 0.")
    sha256: str = Field(description="Hash of its bytes: a name that never comes to mean another image.")
    label: str | None = Field(None, description="Its class.")
    split: str | None = Field(None, description="Its split.")
    groups: dict[str, str] = Field(default={}, description="Values of its groups.")
    covariates: dict[str, float] = Field(default={}, description="Values of its covariates.")
    pair_id: str | None = Field(None, description="Images of one pair have the same.")
    licence: str | None = Field(None, description="Under which it may be used.")
    metadata: dict[str, str] = Field(default={}, description="Columns that have no meaning here.")
    width: int | None = Field(None, description="Pixels, as a person sees it.")
    height: int | None = Field(None, description="Pixels, as a person sees it.")


class FacetCount(Shown):
    """How many images have a value."""

    value: str = Field(description="The value; empty for images without one.")
    n: int = Field(description="Images.")


class Facet(Shown):
    """A column with texts."""

    column: str = Field(description="As `where` takes it.")
    values: list[FacetCount] = Field(description="Most frequent first, at most 200.")
    n_values: int = Field(description="All values that occur.")


class CovariateBin(Shown):
    """A quarter of the images by a covariate."""

    value: str = Field(description="As `where` takes it: `q1` (lowest) to `q4`.")
    low: float = Field(description="Least value in it.")
    high: float = Field(description="Largest value in it.")
    n: int = Field(description="Images.")


class CovariateFacet(Shown):
    """A column with numbers."""

    column: str = Field(description="As `where` takes it.")
    n: int = Field(description="Images that have a value.")
    low: float = Field(description="Least value.")
    high: float = Field(description="Largest value.")
    mean: float = Field(description="Mean value.")
    bins: list[CovariateBin] = Field(description="Quarters, lowest first.")


class Facets(Shown):
    """How many of the chosen images there are of each value."""

    dataset_id: str = Field(description="Data set.")
    digest: str = Field(description="Content that was counted.")
    n_images: int = Field(description="Images that were chosen.")
    split: Facet = Field(description="Splits.")
    label: Facet = Field(description="Labels.")
    groups: list[Facet] = Field(description="Group columns.")
    covariates: list[CovariateFacet] = Field(description="Covariates.")
