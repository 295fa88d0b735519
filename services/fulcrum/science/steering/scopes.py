"""Which tokens a scope means on a given tower."""

from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import EditCannotReachOutput, InvalidEdit
from fulcrum.science.vision.split import SplitTower, reaching_tokens


def scope_tokens(
    tower: SplitTower, scope: Scope, device: torch.device | str = "cpu"
) -> Bool[Tensor, " n_tokens"]:
    """True at the tokens in scope. Not to be written to: equal questions get the same tensor.

    Patches are the last `grid[0] * grid[1]` tokens in row-major order; CLS is token 0.
    Raises InvalidEdit for CLS on a tower without one and for a patch outside the grid.
    """
    return _inside(tower.n_tokens, tower.grid, tower.has_cls, scope).to(device)


# A sweep or a session asks for the same few hundreds of times.
@lru_cache(maxsize=256)
def _inside(n_tokens: int, grid: tuple[int, int], has_cls: bool, scope: Scope) -> Bool[Tensor, " n_tokens"]:
    n_patches = grid[0] * grid[1]
    first_patch = n_tokens - n_patches
    with torch.inference_mode(False):  # whoever asks first, a backward pass may use it later
        inside = torch.zeros(n_tokens, dtype=torch.bool)
    match scope.kind:
        case "all":
            inside[:] = True
        case "cls":
            if not has_cls:
                raise InvalidEdit("scope 'cls' on a tower without CLS: allowed are all, patches, patch_list")
            inside[0] = True
        case "patches":
            inside[first_patch:] = True
        case "patch_list":
            if max(scope.patches) >= n_patches:
                raise InvalidEdit(
                    f"patch {max(scope.patches)} is outside the grid {grid[0]} x {grid[1]}: "
                    f"allowed are 0 .. {n_patches - 1}"
                )
            inside[[first_patch + p for p in scope.patches]] = True
    return inside


def check_reaches_output(tower: SplitTower, scope: Scope) -> None:
    """Raises EditCannotReachOutput when no token in scope has a causal path to the output."""
    if tower.reaches_output == "all":  # and no scope is empty
        return
    if not bool((scope_tokens(tower, scope) & reaching_tokens(tower)).any()):
        only = "the CLS token" if tower.reaches_output == "cls" else "the patch tokens"
        raise EditCannotReachOutput(
            f"scope {scope.kind!r} at {tower.hook_point} touches no token that reaches the output: "
            f"only {only} can, so nothing would change"
        )
