"""What each call of the inference service takes: the arguments of `InferenceEngine`, as one value.

Fields and defaults are those of the Protocol; an image may also be a hash. `deterministic` asks for the same bits
alone or beside other requests.
"""

from dataclasses import dataclass

from fulcrum.domain.corrections import Correction
from fulcrum.domain.models import ModelRef
from fulcrum.domain.results import AttributionMethod
from fulcrum.domain.tasks import ClassSet, Target
from fulcrum.rpc.images import Image


@dataclass(frozen=True)
class EncodeImages:
    """Embeddings of images."""

    model: ModelRef
    images: tuple[Image, ...]
    deterministic: bool = False


@dataclass(frozen=True)
class EncodeTexts:
    """Embeddings of texts."""

    model: ModelRef
    texts: tuple[str, ...]
    deterministic: bool = False


@dataclass(frozen=True)
class EncodeLatents:
    """Latents of one image."""

    model: ModelRef
    sae: str
    image: Image
    deterministic: bool = False


@dataclass(frozen=True)
class Predict:
    """Predictions of images."""

    model: ModelRef
    images: tuple[Image, ...]
    task: ClassSet
    deterministic: bool = False


@dataclass(frozen=True)
class PredictSteered:
    """Predictions of images without and with a correction."""

    model: ModelRef
    sae: str
    images: tuple[Image, ...]
    correction: Correction
    task: ClassSet
    deterministic: bool = False


@dataclass(frozen=True)
class Attribute:
    """Which latents an output is attributed to."""

    model: ModelRef
    sae: str
    image: Image
    task: ClassSet
    target: Target | None = None
    method: AttributionMethod = "act_x_grad"
    n_latents: int = 20
    n_steps: int = 32
    per_token: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class Steer:
    """What a correction does to one image."""

    model: ModelRef
    sae: str
    image: Image
    correction: Correction
    task: ClassSet
    target: Target | None = None
    n_controls: int = 32
    seed: int = 0
    deterministic: bool = False


@dataclass(frozen=True)
class Sweep:
    """The answer over a grid of gains."""

    model: ModelRef
    sae: str
    image: Image
    latents: tuple[int, ...]
    gains: tuple[float, ...]
    task: ClassSet
    target: Target | None = None
    deterministic: bool = False


@dataclass(frozen=True)
class Suggest:
    """Edits of one image that make `wanted` the prediction."""

    model: ModelRef
    sae: str
    image: Image
    task: ClassSet
    wanted: str
    max_latents: int = 5
    deterministic: bool = False


@dataclass(frozen=True)
class SessionOpening:
    """What stays the same over all moves of a steering session; a slider needs no controls."""

    model: ModelRef
    sae: str
    image: Image
    task: ClassSet
    target: Target | None = None
    n_controls: int = 0
    seed: int = 0
    deterministic: bool = False


@dataclass(frozen=True)
class SessionMove:
    """The slider moved: `correction` as it is now. `sequence` counts up within a session."""

    sequence: int
    correction: Correction


@dataclass(frozen=True)
class LoadModel:
    """Loads and describes a model."""

    ref: ModelRef


@dataclass(frozen=True)
class LoadSae:
    """Loads an SAE and checks that it fits the model."""

    sae: str
    model: ModelRef


@dataclass(frozen=True)
class ListModels:
    """Describes the models in memory."""


@dataclass(frozen=True)
class WarmModel:
    """Loads a model (and SAE) and runs one forward."""

    model: ModelRef
    sae: str | None = None
