"""The model's answer before and after edits, from one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import HeldLatents
from fulcrum.science.steering.conditions import Readout, needs_logits
from fulcrum.science.steering.edits import EditPlan, apply_edits, plan_rows
from fulcrum.science.vision.split import HookState, SplitTower


@dataclass(frozen=True)
class Steered:
    """Unnormalised embeddings: `before` per image, `after` per plan; plan i belongs to image `rows[i]`.

    Where a plan changed nothing, `after` is a copy of `before`, bit for bit.
    """

    before: Float[Tensor, "n_images d_embed"]
    after: Float[Tensor, "n_plans d_embed"]
    rows: Int[Tensor, " n_plans"]
    changed: Bool[Tensor, " n_plans"]
    conditions_met: Bool[Tensor, " n_plans"]


@torch.no_grad()
def suffix_embeddings(
    tower: SplitTower,
    state: HookState,
    x: Float[Tensor, "n n_tokens d_in"],
    rows: Int[Tensor, " n"],
    batch_size: int = 64,
) -> Float[Tensor, "n d_embed"]:
    """Embeddings of activations `x` in place of those of image `rows[i]` of `state` (whose carry they share).

    Raises ComputationFailed when an embedding is not finite.
    """
    parts = []
    for start in range(0, x.shape[0], batch_size):
        part = slice(start, start + batch_size)
        carry = None if state.carry is None else state.carry[rows[part]]
        parts.append(tower.suffix(HookState(x[part], carry)))
    if not parts:
        raise ComputationFailed("no activations to run the suffix on")
    embeddings = torch.cat(parts)
    if not bool(torch.isfinite(embeddings).all()):
        raise ComputationFailed(f"the suffix from {tower.hook_point} gave embeddings that are not finite")
    return embeddings


@torch.no_grad()
def steered_embeddings(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    plans: Sequence[EditPlan],
    rows: Sequence[int] | Tensor | None = None,
    *,
    readout: Readout | None = None,
    batch_size: int = 64,
    before: Float[Tensor, "n_images d_embed"] | None = None,
    held: HeldLatents | None = None,
) -> Steered:
    """Embeddings of every image and of every plan; the suffix runs only on what a plan changed.

    `rows[i]` is the image of plan i (default: one plan per image, or all plans on the only image). Unedited
    rows go through the suffix in the same batch as the edited ones where they fit. `before` may bring the
    unedited embeddings of the same state, for callers which evaluate many plans on the same images, and `held`
    its latents: with many plans, encoding again for each batch of them costs more than the suffix.
    Raises what `apply_edits` raises, and ComputationFailed.
    """
    n_images = state.x.shape[0]
    index = plan_rows(n_images, len(plans), rows).to(state.x.device)
    logits = None
    if readout is not None and needs_logits([c for plan in plans for c in plan.conditions]):
        if before is None:
            before = suffix_embeddings(
                tower, state, state.x, torch.arange(n_images, device=index.device), batch_size
            )
        logits = readout.logits(before)

    everyone = torch.arange(n_images, device=index.device)
    changed: list[Tensor] = []
    met: list[Tensor] = []
    edited_rows: list[Tensor] = []
    pending: list[tuple[Tensor, Tensor]] = [] if before is not None else [(state.x, everyone)]
    ran: list[Tensor] = []

    def flush(full_only: bool) -> None:
        """Runs what waits, in full batches: a batch of few rows costs nearly as much as a full one."""
        while pending:
            x = torch.cat([p[0] for p in pending])
            of = torch.cat([p[1] for p in pending])
            pending.clear()
            n = len(x) // batch_size * batch_size if full_only else len(x)
            if n < len(x):
                pending.append((x[n:], of[n:]))
            if n:
                ran.append(suffix_embeddings(tower, state, x[:n], of[:n], batch_size))
            if full_only:
                return

    for start in range(0, len(plans), batch_size):
        part = slice(start, start + batch_size)
        # Only the images of this piece are encoded.
        images, local = torch.unique(index[part], return_inverse=True)
        edited = apply_edits(
            tower,
            sae,
            state.x[images],
            plans[part],
            local,
            logits=None if logits is None else logits[images],
            readout=readout,
            read_latents=None if held is None else partial(held, images),
        )
        changed.append(edited.changed.any(dim=1))
        met.append(edited.conditions_met)
        edited_rows.append(edited.changed_rows + start)
        if edited.changed_rows.numel():
            pending.append((edited.x[edited.changed_rows], index[part][edited.changed_rows]))
        flush(full_only=True)
    flush(full_only=False)

    embeddings = torch.cat(ran) if ran else None
    if before is None:
        assert embeddings is not None  # the unedited rows ran
        before, embeddings = embeddings[:n_images], embeddings[n_images:]
    after = before[index]
    if embeddings is not None and edited_rows:
        after[torch.cat(edited_rows)] = embeddings.to(after.dtype)
    nothing = torch.zeros(0, dtype=torch.bool, device=index.device)
    return Steered(
        before,
        after,
        index,
        torch.cat(changed) if changed else nothing,
        torch.cat(met) if met else nothing,
    )
