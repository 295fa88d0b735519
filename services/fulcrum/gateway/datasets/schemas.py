"""Bodies and records of `/v1/datasets`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fulcrum.domain.datasets import LeakKind
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
    report_sha256: str | None = Field(None, description="Artifact with what the import found.")
    size_bytes: int = Field(0, description="Size of its images.")
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
        str,
        StringConstraints(min_length=1, max_length=500, pattern=r"^(folder|bucket):[^\x00-\x1f\x7f]+$"),
    ] = Field(
        description="`folder:NAME/sub` or `bucket:NAME/prefix` below a place that was allowed for workers."
    )
    format: Name | None = Field(None, description="Format of the data set; by default it is recognised.")
    new_splits: bool = Field(False, description="Divide the images anew whatever splits they have.")
    seed: Seed = Field(0, description="Of the new splits.")
    model_id: Id | None = Field(
        None,
        description="Registered model of the project: images whose embeddings by it have a cosine of .95 or more are "
        "near-duplicates too. By default hashes alone are compared.",
    )
    expected_version: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = Field(
        None, description="Version of the record as you saw it; when it has changed, nothing is imported."
    )


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
    pixels_sha256: str | None = Field(None, description="Hash of the decoded pixels.")
    phash: str | None = Field(None, description="Perceptual hash, 64 bits in hex.")
    cluster: int | None = Field(None, description="Duplicates have the same number.")
    mask_sha256: str | None = Field(None, description="Artifact with its mask.")


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


class DatasetVersion(Shown):
    """A content that a data set has or had; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    dataset_id: str = Field(description="Data set.")
    digest: str = Field(description="Hash of the content, as indexes and evaluations name it.")
    manifest_sha256: str = Field(description="Artifact with its samples.")
    report_sha256: str = Field(description="Artifact with what the import found.")
    n_images: int = Field(description="Images.")
    size_bytes: int = Field(description="Size of the images.")
    n_by_split: dict[str, int] = Field(description="Images of each split.")
    job_id: str = Field(description="Import that made it.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was made.")


class LeftOut(Shown):
    """An image that could not be used."""

    id: str = Field(description="Its id.")
    reason: str = Field(description="Reason of the error.")
    message: str = Field(description="What is wrong with it.")


class EmbeddingLink(Shown):
    """Two images that are near-duplicates by the cosine of their embeddings, and not by their hashes."""

    ids: list[str] = Field(description="Ids of the two.")
    cosine: float = Field(description="Cosine of their embeddings.")


class LeakedImages(Shown):
    """Images that belong together and stand in several splits."""

    kind: LeakKind = Field(
        description="The strongest link: equal bytes, equal pixels, near-duplicates by hash, by embedding, or only the "
        "same pair_id."
    )
    ids: dict[str, list[str]] = Field(description="Split to ids.")
    link: EmbeddingLink | None = Field(
        None, description="Of a link by embedding: the most similar two in different splits."
    )


class ComparedEmbeddings(Shown):
    """What embeddings said about duplicates."""

    model_id: str = Field(description="Model that embedded the images.")
    model_name: str = Field(description="Its name when it did.")
    model_sha256: str = Field(description="Hash of its weights.")
    min_cosine: float = Field(description="From which on two images are near-duplicates.")
    n_links: int = Field(description="Links that hashes had not found.")
    links: list[EmbeddingLink] = Field(
        description="For each such image the most similar one; most similar pairs first, at most 200."
    )


class ImportReport(Shown):
    """What an import found. Lists hold at most 200; the counts beside them are of all."""

    dataset_id: str = Field(description="Data set.")
    digest: str = Field(description="Content that was made.")
    job_id: str = Field(description="The import.")
    source: str = Field(description="Where the images came from.")
    format: str = Field(description="Format of the data set.")
    n_found: int = Field(description="Images at the source.")
    n_images: int = Field(description="Images that were imported.")
    size_bytes: int = Field(description="Size of these.")
    splits: Literal["given", "new"] = Field(description="Where the splits are from.")
    n_by_split: dict[str, int] = Field(description="Images of each split.")
    n_left_out: int = Field(description="Images that could not be used.")
    left_out: list[LeftOut] = Field(description="These images.")
    n_rotated: int = Field(description="Images turned upright by their EXIF orientation.")
    n_converted: int = Field(description="Images converted to RGB.")
    n_masks: int = Field(description="Masks that were kept.")
    mask_problems: list[str] = Field(description="Masks that could not be used, and why.")
    n_duplicate_clusters: int = Field(description="Sets of images that look alike.")
    duplicates: list[list[str]] = Field(description="Ids of each set.")
    n_leaks: int = Field(description="Sets of images that stand in several splits.")
    n_leaking: dict[str, int] = Field(description="Split to images with a counterpart in another one.")
    leaks: list[LeakedImages] = Field(description="These sets.")
    warnings: list[str] = Field(description="What should be known before it is used.")
    embeddings: ComparedEmbeddings | None = Field(
        None, description="What embeddings said, where the import was asked to compare them."
    )


class ImageName(Body):
    """An image as a request names it."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=4000)] = Field(
        description="Its id, number (as a text) or sha256."
    )
    by: Literal["id", "number", "sha256"] = Field("id", description="What the name is.")


class ThumbnailsQuestion(Body):
    """Which small pictures are wanted."""

    images: list[ImageName] = Field(min_length=1, max_length=200, description="The images.")
    digest: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="Content of the data set that is meant; the present one by default."
    )


class Thumbnail(Shown):
    """A small picture."""

    sha256: str = Field(description="Hash of the whole image's bytes.")
    jpeg: str = Field(description="JPEG file of at most 256 x 256 pixels, in base64.")
