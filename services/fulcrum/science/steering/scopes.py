"""Which tokens a scope means on a given tower."""

import torch
from jaxtyping import Bool
from torch import Tensor

from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import EditCannotReachOutput, InvalidEdit
from fulcrum.science.vision.split import SplitTower


def scope_tokens(
    tower: SplitTower, scope: Scope, device: torch.device | str = "cpu"
) -> Bool[Tensor, " n_tokens"]:
    """True at the tokens in scope.

    Patches are the last `grid[0] * grid[1]` tokens in row-major order; CLS is token 0.
    Raises InvalidEdit for CLS on a tower without one and for a patch outside the grid.
    """
    n_patches = tower.grid[0] * tower.grid[1]
    first_patch = tower.n_tokens - n_patches
    inside = torch.zeros(tower.n_tokens, dtype=torch.bool)
    match scope.kind:
        case "all":
            inside[:] = True
        case "cls":
            if not tower.has_cls:
                raise InvalidEdit("scope 'cls' on a tower without CLS: allowed are all, patches, patch_list")
            inside[0] = True
        case "patches":
            inside[first_patch:] = True
        case "patch_list":
            if max(scope.patches) >= n_patches:
                raise InvalidEdit(
                    f"patch {max(scope.patches)} is outside the grid {tower.grid[0]} x {tower.grid[1]}: "
                    f"allowed are 0 .. {n_patches - 1}"
                )
            inside[[first_patch + p for p in scope.patches]] = True
    return inside.to(device)


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


def check_reaches_output(tower: SplitTower, scope: Scope) -> None:
    """Raises EditCannotReachOutput when no token in scope has a causal path to the output."""
    if not bool((scope_tokens(tower, scope) & reaching_tokens(tower)).any()):
        only = "the CLS token" if tower.reaches_output == "cls" else "the patch tokens"
        raise EditCannotReachOutput(
            f"scope {scope.kind!r} at {tower.hook_point} touches no token that reaches the output: "
            f"only {only} can, so nothing would change"
        )
