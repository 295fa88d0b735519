"""Would any push of this size have done it? The same image under random pushes as large as the edit's.

Two kinds: random rotations of the edit's change of x, and the same edits made to other latents, matched on
firing rate and on how much they contribute to this image.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulcrum.domain.edits import Cap, Edit, acts_only_where_it_fires
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.results import Controls, FloatArray
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.steering.scopes import scope_tokens
from fulcrum.science.vision.split import SplitTower


def rotated_deltas(
    delta: Float[Tensor, "n_tokens d_in"], n_draws: int, generator: torch.Generator
) -> Float[Tensor, "n_draws n_tokens d_in"]:
    """`delta` turned in random directions: every token's norm, and the angles between tokens, stay.

    For an edit of one latent that is one random direction with the edit's own sizes per token. Independent
    directions per token would be a weaker control: they cancel in attention, where a real edit adds up.
    """
    u, s, _ = torch.linalg.svd(delta.double(), full_matrices=False)
    rank = max(1, int((s > s[0] * 1e-10).sum())) if bool(s[0] > 0) else 0
    coefficients = u[:, :rank] * s[:rank]
    drawn = torch.randn(n_draws, delta.shape[1], rank, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    # Without the signs of r's diagonal the frames are not uniformly distributed (Mezzadri 2007).
    q = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None, :]
    turned: Tensor = coefficients @ q.mT.to(coefficients.device)
    # The decomposition leaves 1e-16 at tokens which the edit does not touch.
    turned = torch.where((delta != 0).any(dim=1)[:, None], turned, 0.0)
    return turned.to(delta.dtype)


@torch.no_grad()
def matched_plans(
    tower: SplitTower,
    sae: Sae,
    sparse: SparseLatents,
    plan: EditPlan,
    n_draws: int,
    generator: torch.Generator,
    firing_rates: FloatArray | None = None,
) -> list[EditPlan]:
    """`plan` on other latents: each edited one gives way to one of the `n_draws` most like it in this image.

    `sparse` are the latents of the image's tokens.
    Likeness is the distance in log contribution norm (`|z_j| |d_j|` over the tokens in scope) plus, with
    `firing_rates` (d_sae,) of a data set, in log firing rate. Candidates fire in scope and are not edited.
    Edits that need a firing latent and have none here do nothing, and get no stand-in. For the others a
    silent latent is matched on firing rate alone, over the whole SAE. Values in a latent's own units are
    carried over so that the push keeps its size in model units (`cap`: the same share of the latent's
    maximum).
    Fewer plans than `n_draws` where there are fewer candidates, none without any.
    Raises InvalidSettings for firing rates of another number of latents.
    """
    if firing_rates is not None and np.shape(firing_rates) != (sae.config.d_sae,):
        raise InvalidSettings(
            f"firing rates have shape {np.shape(firing_rates)}: one for each of {sae.config.d_sae} latents"
        )
    in_scope = scope_tokens(tower, plan.scope, sparse.offsets.device)
    entries = in_scope[sparse.token_ids()]
    latents = sparse.latents[entries]
    # Summed on the CPU: an accelerator adds in an order of its own, and equal requests would draw other latents.
    squares = np.bincount(
        latents.cpu().numpy(),
        weights=sparse.values[entries].double().square().cpu().numpy(),
        minlength=sparse.d_sae,
    )
    edited = torch.tensor([e.latent for e in plan.edits], dtype=torch.long, device=latents.device)
    # All directions of a wide SAE are many numbers; only the match of a silent latent looks beyond those that fire.
    sizes = _direction_norms(sae, torch.unique(torch.cat([latents, edited])))
    contribution = np.sqrt(squares) * sizes
    if firing_rates is not None and any(contribution[e.latent] == 0 for e in plan.edits):
        sizes = _direction_norms(sae, None)
    maxima = sparse.maxima(in_scope).cpu().numpy()
    rates = None if firing_rates is None else np.log(np.maximum(np.asarray(firing_rates, dtype=float), 1e-6))

    acting = [e for e in plan.edits if contribution[e.latent] > 0 or not acts_only_where_it_fires(e)]
    pools = [_pool(e.latent, contribution, rates, sizes, [o.latent for o in plan.edits]) for e in acting]
    if not pools or any(len(pool) < len(acting) for pool in pools):
        return []
    # One edit: every candidate once. Several: drawn again for each plan, different ones within a plan.
    n = min(n_draws, len(pools[0])) if len(acting) == 1 else n_draws
    plans = []
    for draw in range(n):
        edits: list[Edit] = []
        for edit, pool in zip(acting, pools, strict=True):
            if len(acting) == 1:
                stand_in = int(pool[draw])
            else:
                taken = {e.latent for e in edits}
                free = [int(k) for k in pool[: max(n_draws, len(acting))] if int(k) not in taken]
                stand_in = free[int(torch.randint(len(free), (), generator=generator))]
            edits.append(stood_in(edit, stand_in, maxima, sizes))
        plans.append(EditPlan(tuple(edits), plan.scope, (), plan.drop_error))
    return plans


def _direction_norms(sae: Sae, latents: Int[Tensor, " n"] | None) -> FloatArray:
    """(d_sae,) norms of what one unit of a latent adds to x; 0 for those that are not in `latents` (None: all)."""
    directions = sae.W_dec / sae.norm_scale if latents is None else sae.directions(latents)
    norms: FloatArray = directions.double().norm(dim=1).cpu().numpy()
    if latents is None:
        return norms
    sizes = np.zeros(sae.config.d_sae)
    sizes[latents.cpu().numpy()] = norms
    return sizes


def judge(
    kind: Literal["random_directions", "matched_latents"],
    before: tuple[float, int],
    after: tuple[float, int],
    target_values: FloatArray,
    predicted: np.ndarray,
) -> Controls:
    """Draws against the edit. `before` and `after`: target value and predicted class of the edit itself.

    A draw flips as the edit does when it predicts the edit's new class; where the edit did not change the
    prediction, when it changes it at all. `p_value = (1 + #{|draw| >= |edit|}) / (1 + n)`.
    """
    changes = np.asarray(target_values, dtype=np.float64) - before[0]
    n_as_large = int((np.abs(changes) >= abs(after[0] - before[0])).sum())
    flips = predicted == after[1] if after[1] != before[1] else predicted != before[1]
    return Controls(kind, changes, int(flips.sum()), (1 + n_as_large) / (1 + len(changes)))


def _pool(
    latent: int,
    contribution: FloatArray,
    log_rates: FloatArray | None,
    sizes: FloatArray,
    edited: Sequence[int],
) -> np.ndarray:
    """Candidates by likeness to `latent`, most alike first and the lower number first among equals."""
    silent = contribution[latent] == 0
    usable = sizes > 0 if silent and log_rates is not None else contribution > 0
    usable[list(edited)] = False
    candidates = np.flatnonzero(usable)
    distance = np.zeros(len(candidates))
    if not silent:
        distance += np.abs(np.log(contribution[candidates]) - np.log(contribution[latent]))
    if log_rates is not None:
        distance += np.abs(log_rates[candidates] - log_rates[latent])
    return candidates[np.argsort(distance, kind="stable")]


def stood_in(edit: Edit, latent: int, maxima: FloatArray, sizes: FloatArray) -> Edit:
    """The same edit on another latent, values carried over so that the push keeps its size in model units.

    `maxima` and `sizes` (d_sae,) are the largest value of each latent and the norm of its direction.
    """
    same_push = float(sizes[edit.latent] / sizes[latent])
    match edit.kind:
        case "scale" | "project_out":
            return replace(edit, latent=latent)
        case "cap":
            share = float(maxima[latent] / maxima[edit.latent]) if maxima[edit.latent] > 0 else same_push
            return Cap(latent, edit.value * max(share, 0.0))  # units of a layer may never be above zero
        case "set" | "floor" | "add":
            return replace(edit, latent=latent, value=edit.value * same_push)
        case "mean_ablate":
            return replace(edit, latent=latent, mean=edit.mean * same_push)
        case "affine":
            return replace(edit, latent=latent, shift=edit.shift * same_push)
        case _:
            assert_never(edit.kind)
