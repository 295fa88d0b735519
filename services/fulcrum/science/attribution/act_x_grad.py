"""`R_j = z_j <dy/dx, d_j> / s`, per token, summed: the first-order Taylor term of ablation.

One backward pass. Valid as far as y is linear in z over the range of the ablation: it fails under saturation,
and at the last block of a CLS-pooled tower, where y does not depend on the scale of x, `sum_j R_j` is
`-<e + b, dy/dx>` and no share of y (b: what the SAE adds to x without any latent, in model units).
"""

from jaxtyping import Bool
from torch import Tensor

from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.gradients import along_directions, suffix_gradient
from fulcrum.science.attribution.scores import Scores
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import HookState, SplitTower


def act_x_grad(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    *,
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
) -> Scores:
    """Scores of all active latents of all images: one forward and one backward pass of the whole batch.

    `target` may treat rows differently (their own classes), as rows keep their order.
    Raises EditCannotReachOutput when no token of `tokens` reaches the output, ComputationFailed.
    """
    active = ActiveLatents.of(tower, sae, state.x, tokens, sparse)
    y, gradient = suffix_gradient(tower, state, target)
    return Scores.from_entries(active, along_directions(active, gradient, sae), y)
