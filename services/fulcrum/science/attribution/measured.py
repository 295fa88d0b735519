"""The measured ablation beside the scores on screen: how far the scores can be trusted."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

from fulcrum.science.attribution.ablation import ablated_targets
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import HookState, SplitTower


@dataclass(frozen=True)
class Measured:
    """Ablations of chosen latents of one image, in the target's units."""

    target_value: float
    effects: Float[Tensor, " n"]  # one latent at a time; exactly 0 where it is not active
    joint_effect: float  # all of them together
    interaction_share: float | None  # 1 - sum of effects / joint effect; None when the joint effect is 0
    rank_agreement: float | None  # Spearman with the given scores; None for < 3 latents or constant values


@torch.no_grad()
def measure_latents(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    target: TargetFunction,
    latents: Int[Tensor, " n"],
    scores: Float[Tensor, " n"] | None = None,
    *,
    tokens: Bool[Tensor, " n_tokens"] | None = None,
    sparse: SparseLatents | None = None,
    batch_size: int = 64,
) -> Measured:
    """Single and joint ablations of distinct `latents` of the one image of `state`, in one batched pass.

    `scores` (in the order of `latents`) are what the rank agreement is computed with.
    Raises EditCannotReachOutput, ComputationFailed.
    """
    active = ActiveLatents.of(tower, sae, state.x, tokens, sparse).only(latents)
    latents = latents.to(active.latents)
    # Two groups of entries: each latent by itself (0 .. n-1), and all together (n).
    n = len(latents)
    single = (active.latents[:, None] == latents[None]).int().argmax(dim=1) if n else active.latents
    both = ActiveLatents(
        rows=active.rows.repeat(2),
        tokens=active.tokens.repeat(2),
        latents=active.latents.repeat(2),
        values=active.values.repeat(2),
        n_images=1,
        n_tokens=active.n_tokens,
        d_sae=active.d_sae,
    )
    group = torch.cat([single, torch.full_like(single, n)])
    rows = torch.zeros(n + 1, dtype=torch.long, device=state.x.device)
    y, y_without = ablated_targets(tower, state, sae, target, both, group, rows, batch_size)
    effects = (y[0] - y_without).double()
    # A silent latent's row is the unedited one; another place in the batch may still round it differently.
    fires = torch.isin(torch.arange(n, device=single.device), single)
    effects[:n] = torch.where(fires, effects[:n], 0.0)
    joint = float(effects[n]) if bool(fires.any()) else 0.0
    share = None if joint == 0 else 1.0 - float(effects[:n].sum()) / joint
    agreement = None if scores is None else rank_agreement(scores.detach().cpu(), effects[:n].cpu())
    return Measured(float(y[0]), effects[:n], joint, share, agreement)


def rank_agreement(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for < 3 values or a constant side."""
    ranks_a, ranks_b = rankdata(np.asarray(a)), rankdata(np.asarray(b))
    if len(ranks_a) < 3 or np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return None
    return float(np.clip(np.corrcoef(ranks_a, ranks_b)[0, 1], -1.0, 1.0))
