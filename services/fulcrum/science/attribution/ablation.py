"""`A_j = y(x) - y(x - z_j d_j / s)`: the ground truth for one latent, all tokens in scope at once."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.scores import Scores
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import HookState, SplitTower


@torch.no_grad()
def ablation(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    *,
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
    latents: Int[Tensor, " n"] | None = None,
    batch_size: int = 64,
) -> Scores:
    """Measured effects of all active latents (or of those of `latents` which are active), in full batches.

    One suffix row for each of them and one for each image. `target` treats all rows alike.
    Raises EditCannotReachOutput, ComputationFailed.
    """
    active = ActiveLatents.of(tower, sae, state.x, tokens, sparse)
    if latents is not None:
        active = active.only(latents)
    rows, latent, pair = active.pairs()
    y, y_without = ablated_targets(tower, state, sae, target, active, pair, rows, batch_size)
    return Scores(rows, latent, (y[rows] - y_without).double(), y, active, None)


@torch.no_grad()
def ablate_tokens(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    latents: Int[Tensor, " n"],
    *,
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
    batch_size: int = 64,
) -> Float[Tensor, "n n_tokens"]:
    """Measured effect of each latent of one image at one token at a time.

    These do not sum to its `ablation`. Raises EditCannotReachOutput, ComputationFailed.
    """
    active = ActiveLatents.of(tower, sae, state.x, tokens, sparse).only(latents)
    each = torch.arange(len(active.values), device=active.values.device)
    y, y_without = ablated_targets(tower, state, sae, target, active, each, active.rows, batch_size)
    effects = y.new_zeros(len(latents), active.n_tokens)
    at, entry = torch.nonzero(latents.to(active.latents)[:, None] == active.latents[None], as_tuple=True)
    effects[at, active.tokens[entry]] = (y[0] - y_without)[entry]
    return effects


def ablated_targets(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    active: ActiveLatents,
    group: Int[Tensor, " n_active"],
    rows: Int[Tensor, " n_groups"],
    batch_size: int,
) -> tuple[Float[Tensor, " n_images"], Float[Tensor, " n_groups"]]:
    """`y` of the untouched images, and of image `rows[g]` without the entries of group g, from one pass.

    Raises ComputationFailed when one of them is not finite.
    """
    n_images, n_groups = active.n_images, len(rows)
    of_row = torch.cat([torch.arange(n_images, device=rows.device), rows])
    order = torch.argsort(group, stable=True)
    sorted_group = group[order]
    values = []
    for start in range(0, n_images + n_groups, batch_size):
        end = min(start + batch_size, n_images + n_groups)
        batch = state.rows(of_row[start:end])
        first, last = start - n_images, end - n_images
        bounds = torch.searchsorted(sorted_group, torch.tensor([first, last], device=group.device))
        entries = order[int(bounds[0]) : int(bounds[1])]
        if len(entries):
            # (rows, tokens, latents of this piece): each row has few of them.
            latents, position = torch.unique(active.latents[entries], return_inverse=True)
            z = active.values.new_zeros(end - start, active.n_tokens, len(latents))
            z[group[entries] - first, active.tokens[entries], position] = active.values[entries]
            touched = (z != 0).any(dim=2, keepdim=True)
            without = (batch.x - z @ sae.directions(latents)).to(batch.x.dtype)
            batch = batch.with_x(torch.where(touched, without, batch.x))
        values.append(target(tower.suffix(batch)))
    y = torch.cat(values)
    if not bool(torch.isfinite(y).all()):
        raise ComputationFailed(f"the target at {tower.hook_point} is not finite")
    return y[:n_images], y[n_images:]
