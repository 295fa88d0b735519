"""Bodies and records of indexes, descriptions and described latents."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from fulcrum.gateway.body import Body
from fulcrum.gateway.concepts.schemas import ConceptRecord, LabelReview
from fulcrum.gateway.schemas import Id, Prompt, Seed, Shown

LatentSort = Literal[
    "latent",
    "image_rate",
    "token_rate",
    "max",
    "clarity",
    "polysemanticity",
    "redundancy",
    "label_score",
    "purity",
]


class IndexRecord(Shown):
    """An index of a data set under an SAE; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    dataset_id: str = Field(description="Data set that was indexed.")
    sae_id: str = Field(description="SAE whose latents it holds.")
    key: str = Field(description="Hash of all that determines its numbers.")
    dataset_digest: str = Field(description="Content of the data set then.")
    model_sha256: str = Field(description="Weights of the model.")
    sae_sha256: str = Field(description="Weights of the SAE.")
    n_images: int = Field(description="Images in it.")
    n_activations: int = Field(description="Images whose activations were kept.")
    size_bytes: int = Field(description="Size of its files.")
    files: dict[str, str] = Field(description="Its files among the artifacts, name to sha256.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was made.")


class DescriptionRecord(Shown):
    """What the latents of an SAE stand for by an index; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    sae_id: str = Field(description="SAE whose latents are described.")
    dataset_id: str = Field(description="Data set that they were described by.")
    index_id: str = Field(description="Its index.")
    key: str = Field(description="Hash of all that determines it.")
    sha256: str = Field(description="Artifact with the description.")
    n_described: int = Field(description="Latents that fire at least once.")
    n_labels: int = Field(description="Words of the vocabulary.")
    size_bytes: int = Field(description="Size of the artifact.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was made.")


class DescribedLatent(Shown):
    """A latent in a list; one that never fires has rates of 0."""

    latent: int = Field(description="Index of the latent.")
    label: str | None = Field(description="What it is called, by a person or a program.")
    label_source: Literal["auto", "person"] | None = Field(description="Who found the label.")
    label_score: float | None = Field(description="How sure a program was, a mean cosine.")
    n_images_active: int = Field(description="Images in which it fires.")
    image_rate: float = Field(description="Share of images in which it fires.")
    token_rate: float = Field(description="Share of tokens on which it fires.")
    max: float = Field(description="Largest value.")
    mean_active: float = Field(description="Mean over the tokens on which it fires.")
    p99: float = Field(description="99th percentile of its active values: the unit of doses.")
    clarity: float | None = Field(description="How alike its top images are, a mean cosine.")
    polysemanticity: float | None = Field(description="0 (one meaning) to 2 (opposite ones).")
    redundancy: float | None = Field(description="Largest cosine with the meaning of another latent.")
    dominant_class: str | None = Field(description="Most frequent class of its labelled top images.")
    purity: float | None = Field(description="Share of that class among them.")
    label_review: LabelReview | None = Field(
        None, description="Whether colleagues agree with a person's label."
    )


class LatentHistogram(Shown):
    """Active tokens by value."""

    edges: list[float] = Field(description="Edges of the bins, one more than counts.")
    counts: list[int] = Field(description="Tokens in each bin.")


class CandidateLabel(Shown):
    """A word that a program proposes."""

    text: str = Field(description="The word.")
    score: float = Field(description="Mean cosine.")
    margin: float = Field(description="Lead over the next word.")


class ClassShare(Shown):
    """A class among the labelled top images."""

    class_name: str = Field(description="The class.")
    count: int = Field(description="Top images of it.")
    share: float = Field(description="Its share among the labelled top images.")
    lift: float = Field(description="That share over its share in the data set.")


class LatentNeighbour(Shown):
    """Another latent."""

    latent: int = Field(description="Index of the latent.")
    score: float = Field(description="Phi of firing on the same images, or the cosine of the decoder rows.")
    label: str | None = Field(description="What it is called.")
    n_joint: int | None = Field(None, description="Images where both fire.")


class TopImage(Shown):
    """An example."""

    dataset_id: str = Field(description="Data set that the image is of.")
    dataset_digest: str = Field(description="Content of the data set in which it has its number.")
    image: int = Field(description="Number of the image in that content.")
    value: float = Field(description="Maximum, or mean over tokens, of the latent in it.")
    peak_patch: int | None = Field(
        description="Row-major patch of the largest value; null where only CLS fires."
    )
    on_cls: float = Field(description="Value at the CLS token.")
    heatmap: list[list[float]] = Field(description="The latent over the patch grid, row by row.")


class LatentDetail(Shown):
    """All that is known about one latent."""

    description_id: str = Field(description="Description that says it.")
    summary: DescribedLatent = Field(description="As in the list.")
    histogram: LatentHistogram = Field(description="Active tokens by value.")
    candidates: list[CandidateLabel] = Field(description="Words that a program proposes, best first.")
    concept: ConceptRecord | None = Field(description="What was recorded, with its history.")
    classes: list[ClassShare] = Field(description="Classes of the labelled top images, most frequent first.")
    dominant_p: float | None = Field(description="p of the dominant class, corrected for the choice.")
    cofiring: list[LatentNeighbour] = Field(description="Latents that fire on the same images.")
    decoder: list[LatentNeighbour] = Field(description="Latents that write in the same direction.")
    redundant_with: int | None = Field(description="Latent of the most similar meaning.")


class LatentCard(Shown):
    """A latent with a few examples."""

    summary: DescribedLatent = Field(description="As in the list.")
    examples: list[TopImage] = Field(description="Top images by maximum.")


class LatentMap(Shown):
    """Latents on a plane, in columns; those with too few top images are left out."""

    description_id: str = Field(description="Description that says it.")
    latents: list[int] = Field(description="Which latents.")
    x: list[float] = Field(description="Places, -1 .. 1.")
    y: list[float] = Field(description="Places, -1 .. 1.")
    image_rate: list[float] = Field(description="Share of images in which each fires.")
    labels: list[str] = Field(description="What each is called, empty where nobody said.")


class LatentHit(Shown):
    """A latent that a search found."""

    latent: int = Field(description="Index of the latent.")
    score: float = Field(description="Cosine; by an image's latents: its value over the latent's p99.")
    label: str | None = Field(description="What it is called.")


class LatentSearch(Body):
    """What is looked for: words or an image."""

    text: Prompt | None = Field(None, description="Words.")
    image_id: Id | None = Field(None, description="An uploaded image.")
    by: Literal["latents", "embedding"] = Field(
        "latents", description="With an image: latents that fire strongly in it, or whose meaning is like it."
    )
    n: Annotated[int, Field(ge=1, le=200)] = Field(20, description="How many are wanted.")
    dataset_id: Id | None = Field(
        None, description="By the description from this data set; the newest by default."
    )


class IndexQuestion(Body):
    """Under which SAE a data set is encoded."""

    sae_id: Id = Field(description="Registered SAE, and with it the model.")


class DescribeQuestion(Body):
    """From which images it is found out what latents stand for, and in which words it is said."""

    dataset_id: Id = Field(description="Data set with imported images.")
    vocabulary: list[Prompt] = Field(
        default=[],
        max_length=10_000,
        description="Words to choose labels from; none takes the built-in ones.",
    )
    n_top_images: int = Field(16, ge=2, le=64, description="Images kept for each latent.")
    seed: Seed = Field(0, description="Of the map.")
