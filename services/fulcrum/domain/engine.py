"""The one interface behind which models run: in this process, or across gRPC."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fulcrum.domain.corrections import Correction
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.results import (
    Attribution,
    AttributionMethod,
    DoseResponse,
    Effect,
    FloatArray,
    IntArray,
    Prediction,
    SteeredPrediction,
    Suggestion,
)
from fulcrum.domain.tasks import ClassSet, Target


@dataclass(frozen=True)
class ImageLatents:
    """Active latents of one image as CSR over its tokens (token 0 is CLS where the tower has one)."""

    offsets: IntArray  # (n_tokens + 1,)
    latents: IntArray  # (n_active,)
    values: FloatArray  # (n_active,)
    d_sae: int


class InferenceEngine(Protocol):
    """Encoding, attribution and steering of one image at a time or many; every method raises domain errors only.

    `model` and `sae` are names under which the engine knows a model or SAE; `image` is the encoded file's bytes.
    """

    def load_model(self, ref: ModelRef) -> ModelInfo:
        """Loads (once) and describes a model."""
        ...

    def load_sae(self, path: str, model: ModelRef) -> SaeInfo:
        """Loads (once) an SAE and checks that it fits the model."""
        ...

    def encode_images(self, model: ModelRef, images: Sequence[bytes]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed)."""
        ...

    def encode_texts(self, model: ModelRef, texts: Sequence[str]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed)."""
        ...

    def encode_latents(self, model: ModelRef, sae: str, image: bytes) -> ImageLatents:
        """Sparse latents of every token at the SAE's hook point."""
        ...

    def predict(self, model: ModelRef, images: Sequence[bytes], task: ClassSet) -> list[Prediction]:
        """Zero-shot predictions."""
        ...

    def predict_steered(
        self,
        model: ModelRef,
        sae: str,
        images: Sequence[bytes],
        correction: Correction,
        task: ClassSet,
    ) -> list[SteeredPrediction]:
        """Zero-shot predictions of many images without and with a correction, paired."""
        ...

    def attribute(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        task: ClassSet,
        target: Target | None = None,
        method: AttributionMethod = "act_x_grad",
        n_latents: int = 20,
        n_steps: int = 32,
        per_token: bool = False,
    ) -> Attribution:
        """`target` None: the margin of the prediction over the runner-up."""
        ...

    def steer(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        correction: Correction,
        task: ClassSet,
        target: Target | None = None,
        n_controls: int = 32,
        seed: int = 0,
    ) -> Effect:
        """Before, after, diagnostics and controls from one call."""
        ...

    def sweep(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        latents: Sequence[int],
        gains: Sequence[float],
        task: ClassSet,
        target: Target | None = None,
    ) -> DoseResponse:
        """All gains in one batched suffix pass."""
        ...

    def suggest(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        task: ClassSet,
        wanted: str,
        max_latents: int = 5,
    ) -> Iterator[Suggestion]:
        """Alternative minimal edits which make `wanted` the prediction, as they are found."""
        ...
