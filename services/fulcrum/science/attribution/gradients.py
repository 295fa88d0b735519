"""Gradients of a target with respect to activations, read along latents' directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.targets import TargetFunction
from fulcrum.science.sae.base import Sae
from fulcrum.science.vision.split import HookState, SplitTower


def suffix_gradient(
    tower: SplitTower, state: HookState, target: TargetFunction
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch n_tokens d_in"]]:
    """`y` and `dy/dx` of every row from one forward and one backward pass through the suffix.

    Works under `no_grad` and on activations made under `inference_mode`. Weights get no gradients.
    Raises ComputationFailed when y or its gradient is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made under inference_mode cannot be saved for a backward pass; their clones can.
        x = state.x.detach().clone().requires_grad_()
        carry = None if state.carry is None else state.carry.detach().clone()
        y = target(tower.suffix(HookState(x, carry)))
        (gradient,) = torch.autograd.grad(y.sum(), x)
    y = y.detach()
    if not bool(torch.isfinite(y).all() & torch.isfinite(gradient).all()):
        raise ComputationFailed(f"the target or its gradient at {tower.hook_point} is not finite")
    return y, gradient


def along_directions(
    active: ActiveLatents, gradient: Float[Tensor, "n_images n_tokens d_in"], sae: Sae
) -> Float[Tensor, " n_active"]:
    """`z_tj <gradient_t, d_j> / s` for every active entry.

    Image by image, one product of its tokens with the directions of the latents that fire in it: neither
    (tokens x d_sae) nor (active entries x d_in) numbers are ever held.
    """
    scores = []
    with torch.no_grad():
        for row in range(active.n_images):
            mine = active.entries_of(row)
            latents, position = torch.unique(active.latents[mine], return_inverse=True)
            products = gradient[row].to(sae.W_dec.dtype) @ sae.directions(latents).T
            scores.append(active.values[mine] * products[active.tokens[mine], position])
    return torch.cat(scores)
