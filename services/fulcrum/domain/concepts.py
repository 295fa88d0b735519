"""What is shown of a described latent: statistics, labels, classes, neighbours, examples, a place on the map."""

from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.labels import LabelReview, LabelSource
from fulcrum.domain.records import ConceptRecord

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
SearchBy = Literal["latents", "embedding"]


@dataclass(frozen=True)
class DescribedLatent:
    """A latent in a list. Scores are None where it fires in too few images; one that never fires has rates of 0."""

    latent: int
    label: str | None
    label_source: LabelSource | None
    label_score: float | None
    n_images_active: int
    image_rate: float
    token_rate: float
    max: float
    mean_active: float
    p99: float
    clarity: float | None
    polysemanticity: float | None
    redundancy: float | None
    dominant_class: str | None
    purity: float | None  # share of the dominant class among the labelled top images
    label_review: LabelReview | None = None  # of a person's label


@dataclass(frozen=True)
class LatentHistogram:
    """Active tokens by value: `counts[i]` of them lie in `edges[i] .. edges[i+1]`; empty for a latent that is dead."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CandidateLabel:
    """A word that a program proposes. `margin`: its lead over the next."""

    text: str
    score: float
    margin: float


@dataclass(frozen=True)
class ClassShare:
    """A class among the labelled top images. `lift`: its share there over its share in the data set."""

    class_name: str
    count: int
    share: float
    lift: float


@dataclass(frozen=True)
class LatentNeighbour:
    """Another latent: phi of firing on the same images, or the cosine of the decoder rows."""

    latent: int
    score: float
    label: str | None
    n_joint: int | None = None  # images where both fire


@dataclass(frozen=True)
class TopImage:
    """An example. `image` is the number in that content of the data set, as `client.datasets.thumbnail` takes it;
    `heatmap` is the latent over the patch grid, row by row.
    """

    dataset_id: str
    dataset_digest: str
    image: int
    value: float
    peak_patch: int | None  # row-major; None where only CLS fires
    on_cls: float  # value at the CLS token, 0 where there is none
    heatmap: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LatentDetail:
    """All that is known about one latent. `concept` is what was recorded, with its history."""

    description_id: str
    summary: DescribedLatent
    histogram: LatentHistogram
    candidates: tuple[CandidateLabel, ...]
    concept: ConceptRecord | None
    classes: tuple[ClassShare, ...]  # those that occur, most frequent first
    dominant_p: float | None  # of the dominant class, corrected for the choice
    cofiring: tuple[LatentNeighbour, ...]
    decoder: tuple[LatentNeighbour, ...]
    redundant_with: int | None


@dataclass(frozen=True)
class LatentCard:
    """A latent with a few examples."""

    summary: DescribedLatent
    examples: tuple[TopImage, ...]


@dataclass(frozen=True)
class LatentMap:
    """Latents on a plane, in columns. Those with too few top images have no place and are left out."""

    description_id: str
    latents: tuple[int, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    image_rate: tuple[float, ...]
    labels: tuple[str, ...]  # "" where there is none


@dataclass(frozen=True)
class LatentHit:
    """A latent that a search found."""

    latent: int
    score: float
    label: str | None
