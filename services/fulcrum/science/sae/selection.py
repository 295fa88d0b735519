"""Exact selection of the largest pre-activations without sorting whole rows."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Below this width one topk is faster than two.
_DIRECT_WIDTH = 512


def group_size(d_sae: int, k: int) -> int:
    """Latents per group that balances the two stages (`d_sae / g` maxima, then `k g` candidates); 1 means direct."""
    if d_sae <= _DIRECT_WIDTH or k * 4 >= d_sae:
        return 1
    size = 1
    # Both stages cost about the same per element, so the sum is smallest near g = sqrt(d_sae / k).
    while (2 * size) ** 2 <= 2 * d_sae / k and d_sae % (2 * size) == 0:
        size *= 2
    return size


def top_k(pre_acts: Float[Tensor, "n d_sae"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k largest values of every row and their columns, in no particular order; exactly those of `torch.topk`.

    Two stages: a row's k largest lie in the k groups with the largest maxima, because any other group's maximum is
    topped by k values. Groups are strided (column j belongs to group j mod n_groups), so that their maxima are
    elementwise maxima of contiguous slices.
    """
    n, d_sae = pre_acts.shape
    size = group_size(d_sae, k)
    if size == 1:
        values, latents = torch.topk(pre_acts, k, dim=1, sorted=False)
        return values, latents
    n_groups = d_sae // size
    maxima = pre_acts.view(n, size, n_groups).amax(1)
    groups = torch.topk(maxima, k, dim=1, sorted=False).indices
    steps = torch.arange(size, device=pre_acts.device) * n_groups
    candidates = (groups[:, None, :] + steps[:, None]).reshape(n, size * k)
    values, at = torch.topk(pre_acts.gather(1, candidates), k, dim=1, sorted=False)
    return values, candidates.gather(1, at)


def batch_top_k(
    pre_acts: Float[Tensor, "n d_sae"], n_keep: int, guess: float = -math.inf
) -> tuple[Float[Tensor, " n_keep"], Int[Tensor, " n_keep"]]:
    """The `n_keep` largest values of the whole batch and their flat positions, ascending by position.

    `guess` is an expected threshold (the last batch's): when at least `n_keep` values exceed it, only those are
    ranked. The answer does not depend on it.
    """
    flat = pre_acts.reshape(-1)
    positions = torch.nonzero(flat > guess).squeeze(1) if guess > -math.inf else None
    if positions is None or positions.shape[0] < n_keep:
        chosen = torch.topk(flat, n_keep, sorted=False).indices
    else:
        chosen = positions[torch.topk(flat[positions], n_keep, sorted=False).indices]
    chosen = chosen.sort().values
    return flat[chosen], chosen
