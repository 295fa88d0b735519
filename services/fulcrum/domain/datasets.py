"""What is shown of a data set: its images, and how many there are of each value of its columns."""

from dataclasses import dataclass, field
from typing import Literal

ImageBy = Literal["id", "number", "sha256"]


@dataclass(frozen=True)
class DatasetImage:
    """An image of a data set. `number` is its place in this content of the data set, `sha256` the hash of its bytes.

    Width and height are those that a person sees; None where the import did not keep them.
    """

    id: str
    number: int
    sha256: str
    label: str | None = None
    split: str | None = None
    groups: dict[str, str] = field(default_factory=dict)
    covariates: dict[str, float] = field(default_factory=dict)
    pair_id: str | None = None
    licence: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class FacetCount:
    """Images that have this value; "" counts those without one."""

    value: str
    n: int


@dataclass(frozen=True)
class Facet:
    """A column with texts. `column` and each value are what `where` takes.

    `values` are at most 200, most frequent first; `n_values` counts all that occur.
    """

    column: str
    values: tuple[FacetCount, ...]
    n_values: int


@dataclass(frozen=True)
class CovariateBin:
    """A quarter of the images by a covariate, `low` and `high` being the least and largest value in it."""

    value: str  # as `where` takes it: "q1" (lowest) to "q4"
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class CovariateFacet:
    """A column with numbers; `n` images have one. Equal numbers share a bin, so fewer than four may come out."""

    column: str
    n: int
    low: float
    high: float
    mean: float
    bins: tuple[CovariateBin, ...]


@dataclass(frozen=True)
class Facets:
    """How many of the chosen images there are of each value. `digest` names the content that was counted."""

    dataset_id: str
    digest: str
    n_images: int  # that were chosen
    split: Facet
    label: Facet
    groups: tuple[Facet, ...]
    covariates: tuple[CovariateFacet, ...]
