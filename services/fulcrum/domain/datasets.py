"""What is shown of a data set: its images, and how many there are of each value of its columns."""

from dataclasses import dataclass, field
from typing import Literal

ImageBy = Literal["id", "number", "sha256"]
LeakKind = Literal["bytes", "pixels", "near", "embedding", "pair"]


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
    pixels_sha256: str | None = None  # of the decoded pixels: the same picture in another file has the same
    phash: str | None = None  # 64 bits in hex; those of similar pictures differ in few
    cluster: int | None = None  # duplicates have the same number
    mask_sha256: str | None = None


@dataclass(frozen=True)
class ImageName:
    """An image as a request names it."""

    name: str
    by: ImageBy = "id"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: the JPEG file in base64. `sha256` is that of the whole image's bytes."""

    sha256: str
    jpeg: str


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


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be used; `reason` is that of the error."""

    id: str
    reason: str
    message: str


@dataclass(frozen=True)
class EmbeddingLink:
    """Two images that are near-duplicates by the cosine of their embeddings, and not by their hashes."""

    ids: tuple[str, str]
    cosine: float


@dataclass(frozen=True)
class LeakedImages:
    """Images that belong together and stand in several splits, split to ids.

    `kind` is the strongest link: equal bytes, equal pixels, near-duplicates by hash, by embedding, or only the same
    pair_id. Where it is by embedding, `link` is of the most similar two in different splits.
    """

    kind: LeakKind
    ids: dict[str, tuple[str, ...]]
    link: EmbeddingLink | None = None


@dataclass(frozen=True)
class ComparedEmbeddings:
    """What embeddings said about duplicates: the model, and what they joined that hashes had not.

    `links` holds for each such image the most similar one, most similar pairs first, at most 200; `n_links` counts all.
    """

    model_id: str
    model_name: str  # as it was registered
    model_sha256: str
    min_cosine: float
    n_links: int
    links: tuple[EmbeddingLink, ...]


@dataclass(frozen=True)
class ImportReport:
    """What an import found. Lists hold at most 200; the counts beside them are of all."""

    dataset_id: str
    digest: str
    job_id: str
    source: str
    format: str
    n_found: int
    n_images: int
    size_bytes: int
    splits: Literal["given", "new"]
    n_by_split: dict[str, int]
    n_left_out: int
    left_out: tuple[LeftOut, ...]
    n_rotated: int  # turned upright by their EXIF orientation
    n_converted: int  # from grey, palette, CMYK, transparency
    n_masks: int
    mask_problems: tuple[str, ...]
    n_duplicate_clusters: int
    duplicates: tuple[tuple[str, ...], ...]
    n_leaks: int
    n_leaking: dict[str, int]  # split to images with a counterpart in another
    leaks: tuple[LeakedImages, ...]
    warnings: tuple[str, ...] = ()
    embeddings: ComparedEmbeddings | None = None  # where the import was asked to compare them
