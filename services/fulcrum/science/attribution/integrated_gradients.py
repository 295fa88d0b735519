"""Integrated gradients over the latents (Sundararajan et al. 2017).

The path is `x(a) = x - (1 - a) z W_dec / s`: the error and b_dec stay in it, so that it ends in the true x,
and so that the gradient does not degenerate where y does not depend on the scale of x (SCIENCE.md 8, trap 5).
Complete: `sum_j R_j = y(x) - y(x(0))` up to the quadrature, whose error is returned.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.gradients import along_directions, suffix_gradient
from fulcrum.science.attribution.scores import Scores
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import HookState, SplitTower


def integrated_gradients(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    *,
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
    n_steps: int = 32,
    batch_size: int = 64,
) -> Scores:
    """Scores of all active latents, `n_steps` Gauss-Legendre nodes in batches; with completeness residuals.

    A residual is `y(x) - y(x(0)) - sum of the scores`. `target` treats all rows alike.
    Raises InvalidSettings for `n_steps` < 1, EditCannotReachOutput, ComputationFailed.
    """
    if n_steps < 1:
        raise InvalidSettings(f"n_steps is {n_steps}: integrated gradients need at least 1")
    active = ActiveLatents.of(tower, sae, state.x, tokens, sparse)
    on_minus_one_to_one = np.polynomial.legendre.leggauss(n_steps)
    positions = torch.from_numpy((on_minus_one_to_one[0] + 1) / 2)
    weights = torch.from_numpy(on_minus_one_to_one[1] / 2)

    scores, values, differences = [], [], []
    for row in range(active.n_images):
        one = state.rows(slice(row, row + 1))
        mine = active.of_image(row)
        decoded = _decoded(mine, sae).to(one.x)
        y, gradient = _ends_and_mean_gradient(tower, one, decoded, target, positions, weights, batch_size)
        scores.append(along_directions(mine, gradient[None], sae))
        values.append(y[1])
        differences.append((y[1] - y[0]).double() - scores[-1].double().sum())
    return Scores.from_entries(active, torch.cat(scores), torch.stack(values), torch.stack(differences))


def _decoded(active: ActiveLatents, sae: Sae) -> Float[Tensor, "n_tokens d_in"]:
    """`z W_dec / s` of one image."""
    latents, position = torch.unique(active.latents, return_inverse=True)
    z = active.values.new_zeros(active.n_tokens, len(latents))
    z[active.tokens, position] = active.values
    with torch.no_grad():
        return z @ sae.directions(latents)


def _ends_and_mean_gradient(
    tower: SplitTower,
    one: HookState,
    decoded: Float[Tensor, "n_tokens d_in"],
    target: TargetFunction,
    positions: Float[Tensor, " n_steps"],
    weights: Float[Tensor, " n_steps"],
    batch_size: int,
) -> tuple[Float[Tensor, " 2"], Float[Tensor, "n_tokens d_in"]]:
    """`(y(x(0)), y(x(1)))`, and the weighted gradient along the path; one row more than nodes at each end."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    at = torch.cat([ends, positions]).to(one.x)
    # The ends take part with weight 0: they need only a forward pass, but no call of their own.
    by = torch.cat([torch.zeros(2, dtype=torch.float64), weights]).to(one.x)
    total = torch.zeros_like(decoded)
    y = []
    for start in range(0, len(at), batch_size):
        part = slice(start, start + batch_size)
        path = one.x - (1 - at[part, None, None]) * decoded
        rows = one.repeat(len(path)).with_x(path)
        values, gradient = suffix_gradient(tower, rows, target)
        total += torch.einsum("n,ntd->td", by[part], gradient)
        y.append(values)
    return torch.cat(y)[:2], total
