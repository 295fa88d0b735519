"""Which model, which SAE, and what is known about them once loaded."""

from dataclasses import dataclass, field
from typing import Literal

from fulcrum.domain.hook_points import HookPoint


@dataclass(frozen=True)
class ModelRef:
    """An OpenCLIP model: `model_name` (architecture, `hf-hub:` or `local-dir:` reference) and `pretrained`.

    `pretrained` is a tag, the path of a local checkpoint, or None. None means random weights and is only
    accepted where `random_weights` says so, so that a failed load can never pass for a model.
    """

    model_name: str
    pretrained: str | None = None
    random_weights: bool = False
    seed: int = 0  # of the random weights


# How an image becomes the square that the model sees: its middle, all of it with margins, or all of it distorted.
ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True)
class ModelInfo:
    """A loaded model as the user may see it. `weights_sha256` identifies it in every result."""

    ref: ModelRef
    weights_sha256: str
    preprocess_sha256: str
    image_size: int
    n_blocks: int
    d_model: int
    d_embed: int
    n_tokens: int
    grid: tuple[int, int]
    has_cls: bool
    pooling: str
    logit_scale: float
    logit_bias: float | None
    n_parameters: int
    device: str
    dtype: str
    text_context_length: int = 77
    hook_points: tuple[str, ...] = ()
    resize_mode: ResizeMode = "shortest"


Variant = Literal["relu", "topk", "batch_topk", "jumprelu", "gated", "matryoshka"]
# What activations are read and edited in: an SAE's latents, or the units of the layer as they are.
Dictionary = Literal[Variant, "units"]
# Before the hook point, in the place of an SAE's name.
UNITS = "units:"


@dataclass(frozen=True)
class SaeInfo:
    """A loaded SAE as the user may see it; with variant `units`, the units of the layer in its place."""

    name: str
    weights_sha256: str
    variant: Dictionary
    d_in: int
    d_sae: int
    hook_point: HookPoint
    model_name: str
    quality: dict[str, float] = field(default_factory=dict)
