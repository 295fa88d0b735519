"""What comes back from the engine: predictions, attributions, effects, curves and suggestions."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Edit
from fulcrum.domain.tasks import Target

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

AttributionMethod = Literal["act_x_grad", "integrated_gradients", "ablation"]


@dataclass(frozen=True)
class Prediction:
    """One image under one class set. `logits` include the logit scale (and bias); order of the class set."""

    class_names: tuple[str, ...]
    logits: FloatArray  # (n_classes,)
    probs: FloatArray  # (n_classes,) softmax, or sigmoid for models trained with a sigmoid loss (see `probs_kind`)
    probs_kind: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def top(self) -> str:
        """Predicted class; the first of equal ones."""
        return self.class_names[int(np.argmax(self.logits))]

    @property
    def runner_up(self) -> str | None:
        """Second class, None in a class set of one."""
        if len(self.class_names) < 2:
            return None
        return self.class_names[int(np.argsort(-self.logits, kind="stable")[1])]

    @property
    def margin(self) -> float:
        """Logit of the top class minus the second's; +inf in a class set of one."""
        if len(self.logits) < 2:
            return float("inf")
        best = np.sort(self.logits)[::-1]
        return float(best[0] - best[1])


@dataclass(frozen=True)
class LatentAttribution:
    """One latent's share. `score` is not a percentage: scores do not sum to the target."""

    latent: int
    score: float
    measured_effect: float | None  # y(x) - y(x without the latent); None where not measured
    max_activation: float
    n_tokens_active: int
    per_token: FloatArray | None = None  # (n_tokens,) score per token


@dataclass(frozen=True)
class Attribution:
    """What an output is attributed to, with the evidence about the attribution itself."""

    method: AttributionMethod
    target: Target
    target_value: float
    latents: tuple[LatentAttribution, ...]  # by |score|, largest first
    prediction: Prediction
    rank_agreement: float | None  # Spearman between score and measured effect over the measured latents
    completeness_residual: float | None  # integrated_gradients: y(x) - y(baseline) - sum of all scores
    interaction_share: float | None  # 1 - sum of single effects / effect of all measured together
    joint_effect: float | None
    grid: tuple[int, int] = (0, 0)
    has_cls: bool = True
    hook_point: str = ""


@dataclass(frozen=True)
class EditDiagnostics:
    """Did the edit do what it says? One per row."""

    fired: tuple[bool, ...]  # per edit: was z > 0 anywhere in scope
    condition_met: bool
    relative_change: FloatArray  # (n_tokens,) |x' - x| / |x|
    reencode_error: float  # max |SAE(x')_j - z'_j| over edited latents and tokens in scope
    moved_latents: tuple[
        tuple[int, float], ...
    ]  # (latent, change of its image maximum), unedited ones, largest first
    changed: bool  # False: x' is bit-identical to x


@dataclass(frozen=True)
class Controls:
    """What pushes of the same size do: the change of the same target under random directions or random latents."""

    kind: Literal["random_directions", "matched_latents"]
    target_changes: FloatArray  # (n_draws,)
    n_flipped: int  # draws that change the prediction as the edit does
    p_value: float  # (1 + draws at least as large in absolute change) / (1 + n_draws)


@dataclass(frozen=True)
class Effect:
    """Before and after from one call, so that a comparison can never pair different inputs."""

    before: Prediction
    after: Prediction
    diagnostics: EditDiagnostics
    controls: tuple[Controls, ...] = ()
    target: Target | None = None
    target_before: float | None = None
    target_after: float | None = None
    reconstruction_only: Prediction | None = None  # no edit, error dropped: the baseline of `drop_error`

    @property
    def flipped(self) -> bool:
        """Whether the predicted class changed."""
        return self.before.top != self.after.top


@dataclass(frozen=True)
class SteeredPrediction:
    """One image of many, before and after a correction."""

    before: Prediction
    after: Prediction
    changed: bool  # False: the correction left the activations bit-identical


@dataclass(frozen=True)
class DoseResponse:
    """The answer of the model over a grid of gains for one set of latents."""

    gains: FloatArray  # (n_gains,)
    logits: FloatArray  # (n_gains, n_classes)
    class_names: tuple[str, ...]
    target_values: FloatArray  # (n_gains,)
    target: Target
    flip_interval: (
        tuple[float, float] | None
    )  # gains around the first change of prediction, walking away from 1
    monotone: bool


@dataclass(frozen=True)
class Suggestion:
    """One way to change the answer of one image (or group)."""

    edits: tuple[Edit, ...]
    minimal: bool  # no proper subset flips
    margin_before: float
    margin_after: float
    flips: bool
    dose_interval: tuple[float, float] | None  # gains between which the flip happens; None where not searched
    estimated_effect: float
    dataset_cost: float | None = None  # share of clean images changed, where an index was at hand


@dataclass(frozen=True)
class GroupSuggestion:
    """The greedy search over a failure group, with the path it took."""

    correction: Correction
    group_accuracy_before: float
    group_accuracy_after: float
    clean_accuracy_before: float
    clean_accuracy_after: float
    path: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    n_evaluated: int = 0
