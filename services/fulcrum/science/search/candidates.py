"""Latents whose edit should raise the wanted class of one image, by `IE_j = (z'_j - z_j) dm/dz_j`."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import HookState, SplitTower


@dataclass(frozen=True)
class Candidate:
    """An edit with its first-order effect on the margin, > 0."""

    edit: Scale
    estimate: float


def image_candidates(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    margin: TargetFunction,
    gains: Sequence[float],
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
) -> tuple[float, list[Candidate]]:
    """Margin of the one image, and its candidates: largest estimate first, each latent at its best gain.

    With z' = gain z the estimate is `(gain - 1) * act_x_grad`: one backward pass for all of them.
    Raises InvalidSettings for no gains or a gain of 1 (which changes nothing).
    """
    if not gains or any(gain == 1 for gain in gains):
        raise InvalidSettings(f"gains to search over are {list(gains)}: at least one, and none of them 1")
    scores = act_x_grad(tower, state, sae, margin, tokens=tokens, sparse=sparse)
    latents, values = scores.of_image(0)
    candidates = []
    for latent, value in zip(latents.tolist(), values.tolist(), strict=True):
        gain = max(gains, key=lambda g: (g - 1) * value)
        if (gain - 1) * value > 0:
            candidates.append(Candidate(Scale(latent, gain), (gain - 1) * value))
    # of_image sorts by |score|; with several gains the estimates may stand in another order.
    candidates.sort(key=lambda c: (-c.estimate, c.edit.latent))
    return float(scores.target_values[0]), candidates
