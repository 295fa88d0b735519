"""A tower cut in two at a hook point."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulcrum.domain.hook_points import HookPoint


@dataclass(frozen=True)
class HookState:
    """Activations at a hook point, with what the suffix needs besides them.

    `carry` is None at `resid_post`; elsewhere it is the residual stream that the branch with the activations is
    added to. Both have the batch first, so rows can be selected and repeated together.
    """

    x: Float[Tensor, "batch tokens d_in"]
    carry: Float[Tensor, "batch tokens d_model"] | None = None

    def with_x(self, x: Tensor) -> "HookState":
        """The same place with other activations: what a steered forward pass starts from."""
        return HookState(x, self.carry)

    def rows(self, index: Tensor | slice) -> "HookState":
        """Selected rows (images), in that order."""
        return HookState(self.x[index], None if self.carry is None else self.carry[index])

    def repeat(self, n: int) -> "HookState":
        """Every row `n` times: row i becomes rows i*n ... i*n+n-1."""
        x = self.x.repeat_interleave(n, dim=0)
        return HookState(x, None if self.carry is None else self.carry.repeat_interleave(n, dim=0))


@runtime_checkable  # the shape checks of the tests need isinstance
class SplitTower(Protocol):
    """`suffix(prefix(images))` equals `encode_image(images)` (unnormalised) to float tolerance."""

    hook_point: HookPoint
    d_in: int
    n_tokens: int
    grid: tuple[int, int]
    has_cls: bool
    # Tokens from which the output can be reached at this hook point: after the last block of a CLS-pooled
    # tower the patch tokens have no causal path to the output.
    reaches_output: Literal["all", "cls", "patches"]

    def prefix(self, images: Float[Tensor, "batch 3 height width"]) -> HookState:
        """Activations of preprocessed images at the hook point. Stops there: no later layer runs."""
        ...

    def suffix(self, state: HookState) -> Float[Tensor, "batch d_embed"]:
        """Image embedding (not normalised) from activations; differentiable with respect to `state.x`."""
        ...


def reaching_tokens(tower: SplitTower, device: torch.device | str = "cpu") -> Bool[Tensor, " n_tokens"]:
    """True at the tokens from which the output can be reached at this hook point (SCIENCE.md 8, trap 4)."""
    inside = torch.ones(tower.n_tokens, dtype=torch.bool)
    match tower.reaches_output:
        case "all":
            pass
        case "cls":
            inside[1:] = False
        case "patches":
            inside[: tower.n_tokens - tower.grid[0] * tower.grid[1]] = False
    return inside.to(device)
