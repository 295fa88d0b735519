"""Edits of latents as one change of the activations, many images and many different edits at once.

    x' = x + (z' - z) W_dec / s + projections,   all from the unedited x

so the SAE's error and b_dec cancel (SCIENCE.md 4). Every kind but `project_out` is one affine map with
bounds, `z' = clamp(gain z + shift, low, high)`, the identity bit for bit where an edit has nothing to do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Condition, Edit, LatentCondition, ProjectOut, Scope
from fulcrum.domain.errors import InvalidEdit, LatentOutOfRange
from fulcrum.science.sae.base import Sae
from fulcrum.science.steering.conditions import Readout, conditions_met, needs_logits
from fulcrum.science.steering.scopes import check_reaches_output, scope_tokens
from fulcrum.science.vision.split import SplitTower

# Dense latents of an SAE that is not pointwise: 4096 tokens x 50k latents are 0.8 GB in float32.
_ENCODE_CHUNK_VALUES = 200_000_000


@dataclass(frozen=True)
class EditPlan:
    """What happens to one row: edits, where and when.

    Without edits and with `drop_error`: the reconstruction alone. A latent edited twice is an InvalidEdit.
    """

    edits: tuple[Edit, ...] = ()
    scope: Scope = field(default_factory=Scope)
    conditions: tuple[Condition, ...] = ()
    drop_error: bool = False

    def __post_init__(self) -> None:
        latents = [e.latent for e in self.edits]
        if len(set(latents)) < len(latents):
            doubles = sorted({n for n in latents if latents.count(n) > 1})
            raise InvalidEdit(f"each latent can be edited once in a plan; more than once: {doubles}")

    @classmethod
    def of(cls, correction: Correction) -> "EditPlan":
        """The part of a correction that acts on activations."""
        return cls(correction.edits, correction.scope, correction.conditions, correction.drop_error)

    @property
    def acts(self) -> bool:
        """Whether the plan can change anything at all."""
        return bool(self.edits) or self.drop_error


@dataclass(frozen=True)
class EditedActivations:
    """Edited activations of `n_plans` rows with what is needed to judge them.

    `z` is of the unedited images and covers `latents` (the union over the plans, ascending); `z_edited` is
    what each plan asked for: equal to z out of scope, where conditions fail, and under `project_out`.
    """

    x: Float[Tensor, "n_plans n_tokens d_in"]
    rows: Int[Tensor, " n_plans"]  # image of each plan
    changed: Bool[Tensor, "n_plans n_tokens"]  # x' differs from x in at least one bit
    in_scope: Bool[Tensor, "n_plans n_tokens"]
    conditions_met: Bool[Tensor, " n_plans"]
    latents: Int[Tensor, " n_union"]
    z: Float[Tensor, "n_images n_tokens n_union"]
    z_edited: Float[Tensor, "n_plans n_tokens n_union"]

    @cached_property
    def changed_rows(self) -> Int[Tensor, " n_changed"]:
        """Plans whose activations differ from their image's; only these need the suffix."""
        return torch.nonzero(self.changed.any(dim=1)).flatten()


def check_plan(tower: SplitTower, sae: Sae, plan: EditPlan) -> None:
    """Raises LatentOutOfRange, InvalidEdit (scope) or EditCannotReachOutput."""
    d_sae = sae.config.d_sae
    outside = sorted(latent for latent in _latents(plan) if not 0 <= latent < d_sae)
    if outside:
        raise LatentOutOfRange(f"latents {outside} do not exist in this SAE: allowed are 0 .. {d_sae - 1}")
    scope_tokens(tower, plan.scope)
    if plan.acts:
        check_reaches_output(tower, plan.scope)


def _latents(plan: EditPlan) -> set[int]:
    watched = {c.latent for c in plan.conditions if isinstance(c, LatentCondition)}
    return {e.latent for e in plan.edits} | watched


def plan_rows(n_images: int, n_plans: int, rows: Sequence[int] | Tensor | None) -> Int[Tensor, " n_plans"]:
    """Image of each plan: as given, or one plan per image, or all plans on the only image."""
    if rows is not None:
        index = torch.as_tensor(rows, dtype=torch.long)
        if index.shape != (n_plans,) or not bool(((index >= 0) & (index < n_images)).all()):
            raise InvalidEdit(f"rows must name one of {n_images} images for each of {n_plans} plans: {rows}")
        return index
    if n_plans == n_images:
        return torch.arange(n_plans)
    if n_images == 1:
        return torch.zeros(n_plans, dtype=torch.long)
    raise InvalidEdit(f"{n_plans} plans for {n_images} images: give one plan per image, one image, or `rows`")


@torch.no_grad()
def apply_edits(
    tower: SplitTower,
    sae: Sae,
    x: Float[Tensor, "n_images n_tokens d_in"],
    plans: Sequence[EditPlan],
    rows: Sequence[int] | Tensor | None = None,
    *,
    logits: Float[Tensor, "n_images n_classes"] | None = None,
    readout: Readout | None = None,
    read_latents: Callable[[Tensor], Tensor] | None = None,
) -> EditedActivations:
    """Edited copies of `x`, one row per plan; `x` itself is never written to.

    A token at which a plan has nothing to do is bit-identical to the unedited one. `logits` (unedited) and
    `readout` (for the class names) are needed only by conditions on the prediction. `read_latents(latents)` gives
    z (n_images, n_tokens, n) where it is known already; otherwise `x` is encoded here.

    Several `project_out` edits act together: the smallest change of x after which
    `<x', d_j> = keep_j <x, d_j>` for each of them (least squares where directions depend on each
    other). With one keep for all this is
    `x' = x - (1 - keep) P x`, P the orthogonal projector on their span, whatever their order.
    Projections and latent edits are both computed from the unedited x and added up.

    Raises LatentOutOfRange, InvalidEdit, EditCannotReachOutput.
    """
    n_images, n_tokens, _ = x.shape
    index = plan_rows(n_images, len(plans), rows)
    # Rows that share a plan share its tables; a sweep or a data set has few plans and many rows.
    distinct = list({id(plan): plan for plan in plans}.values())
    position = {id(plan): i for i, plan in enumerate(distinct)}
    of_row = torch.tensor([position[id(plan)] for plan in plans], dtype=torch.long)
    for plan in distinct:
        check_plan(tower, sae, plan)

    union = sorted(set().union(*(_latents(plan) for plan in distinct)))
    latents = torch.tensor(union, dtype=torch.long, device=x.device)
    # The SAE's own precision: half-precision activations would lose the small latents.
    precise = x.to(sae.W_dec.dtype)
    z = (
        encode_selected(sae, precise, latents)
        if read_latents is None
        else read_latents(latents).to(sae.W_dec)
    )

    column = {latent: i for i, latent in enumerate(union)}
    met_by_plan = torch.ones(len(distinct), n_images, dtype=torch.bool)
    class_names = readout.class_names if readout is not None else ()
    if needs_logits([c for plan in distinct for c in plan.conditions]) and readout is None:
        raise InvalidEdit("a condition on the prediction needs a class set, and none was given")
    for i, plan in enumerate(distinct):
        if plan.conditions:
            met_by_plan[i] = conditions_met(
                plan.conditions, lambda n: z[:, :, column[n]].amax(dim=1), logits, class_names, n_images
            )
    met = met_by_plan[of_row, index.cpu()]

    scopes = [scope_tokens(tower, plan.scope) for plan in distinct]
    in_scope = (torch.stack(scopes) if scopes else torch.zeros(0, n_tokens, dtype=torch.bool))[of_row].to(
        x.device
    )
    index, of_row, active = index.to(x.device), of_row.to(x.device), in_scope & met.to(x.device)[:, None]

    z_rows = z[index]
    gain, shift, low, high = _tables(distinct, column).to(z)[:, of_row, None, :]
    wanted = torch.clamp(z_rows * gain + shift, min=low, max=high)
    z_edited = torch.where(active[:, :, None], wanted, z_rows)
    delta = (z_edited - z_rows) @ sae.directions(latents)

    acts_here = (z_edited != z_rows).any(dim=2)
    for i, plan in enumerate(distinct):
        projections = [e for e in plan.edits if isinstance(e, ProjectOut)]
        if not (projections or plan.drop_error):
            continue
        mine = torch.nonzero(of_row == i).flatten()
        mine_x = precise[index[mine]]
        if projections:
            delta[mine] = delta[mine] + _projection_delta(sae, mine_x, projections)
        if plan.drop_error:
            delta[mine] = delta[mine] + (_in_token_chunks(sae, sae, mine_x) - mine_x)
        acts_here[mine] = True
    write = active & acts_here

    original = x[index]
    # Added in the finer of the two precisions: neither a coarse model nor a coarse SAE may round x itself.
    edited = torch.where(write[:, :, None], (original + delta).to(x.dtype), original)
    return EditedActivations(
        edited, index, (edited != original).any(dim=2), in_scope, met.to(x.device), latents, z, z_edited
    )


def encode_selected(
    sae: Sae, x: Float[Tensor, "n_images n_tokens d_in"], latents: Int[Tensor, " n"]
) -> Float[Tensor, "n_images n_tokens n"]:
    """Latents `latents` of every token, in pieces where the SAE has to compute all of them."""
    if latents.numel() == 0:
        return x.new_zeros(*x.shape[:2], 0)
    if sae.pointwise:
        return sae.encode_selected(x, latents)
    return _in_token_chunks(lambda part: sae.encode_selected(part, latents), sae, x)


def _tables(plans: Sequence[EditPlan], column: dict[int, int]) -> Float[Tensor, "4 n_plans n_union"]:
    """`gain, shift, low, high` of `z' = clamp(gain z + shift, low, high)`."""
    tables = np.empty((4, len(plans), len(column)))
    tables[:] = np.array([1.0, 0.0, -np.inf, np.inf])[:, None, None]
    gain, shift, low, high = tables
    for i, plan in enumerate(plans):
        for edit in plan.edits:
            j = column[edit.latent]
            match edit.kind:
                case "scale":
                    gain[i, j] = edit.gain
                case "set":
                    gain[i, j], shift[i, j] = 0.0, edit.value
                case "cap":
                    high[i, j] = edit.value
                case "floor":
                    low[i, j] = edit.value
                case "add":
                    shift[i, j] = edit.value
                case "mean_ablate":
                    gain[i, j], shift[i, j] = 0.0, edit.mean
                case "affine":
                    gain[i, j], shift[i, j] = edit.gain, edit.shift
                case "project_out":
                    pass  # acts on x, not on z
                case _:
                    assert_never(edit.kind)
    return torch.from_numpy(tables)


def _projection_delta(
    sae: Sae, x: Float[Tensor, "batch n_tokens d_in"], edits: Sequence[ProjectOut]
) -> Float[Tensor, "batch n_tokens d_in"]:
    """`-V^+ diag(1 - keep) V x`, V the unit directions: each coordinate along V becomes keep times itself."""
    directions = torch.stack(
        [sae.W_dec[e.latent] if e.direction == "decoder" else sae.W_enc[:, e.latent] for e in edits]
    )
    # A handful of vectors: float64 on the CPU costs nothing, and some accelerators have none.
    v = directions.detach().double().cpu()
    # A direction of norm 0 spans nothing, and its projector is 0 (dividing would give NaN).
    v = v / v.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    removed = torch.tensor([1.0 - e.keep for e in edits], dtype=torch.float64)
    back: Tensor = torch.linalg.pinv(v, rtol=1e-10) * removed  # (d_in, n)
    delta: Tensor = -(x @ v.T.to(x)) @ back.T.to(x)
    return delta


def _in_token_chunks(
    function: Callable[[Tensor], Tensor], sae: Sae, x: Float[Tensor, "batch n_tokens d_in"]
) -> Float[Tensor, "batch n_tokens n"]:
    chunk = max(1, _ENCODE_CHUNK_VALUES // sae.config.d_sae)
    tokens = x.flatten(0, 1)
    parts = [function(tokens[start : start + chunk]) for start in range(0, len(tokens), chunk)]
    return torch.cat(parts).reshape(*x.shape[:2], -1)
