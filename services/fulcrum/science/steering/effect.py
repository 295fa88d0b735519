"""One plan on one image: before, after, diagnostics and controls, all from one pass through the suffix."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, InvalidEdit
from fulcrum.domain.results import Controls, Effect, FloatArray
from fulcrum.domain.tasks import Target
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import HeldLatents, SparseLatents
from fulcrum.science.steering.conditions import Readout, needs_logits
from fulcrum.science.steering.controls import judge, matched_plans, rotated_deltas
from fulcrum.science.steering.diagnostics import diagnose
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import suffix_embeddings
from fulcrum.science.vision.split import HookState, SplitTower


@torch.no_grad()
def effect(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    plan: EditPlan,
    readout: Readout,
    target: Target,
    y: Callable[[Tensor], Tensor],
    *,
    n_controls: int = 32,
    seed: int = 0,
    firing_rates: FloatArray | None = None,
    batch_size: int = 64,
    unedited: Tensor | None = None,
    sparse: SparseLatents | None = None,
) -> Effect:
    """What `plan` does to the one image of `state`; `y(embeddings)` computes `target`.

    `n_controls` draws of each kind, 0 for none; none either for a plan that changes nothing, as a push of
    size 0 has no control. `firing_rates` (d_sae,) of a data set sharpen the match of the latents drawn. With
    `drop_error` the answer of the reconstruction alone stands beside the effect. `unedited` may bring the embedding
    (1, d_embed) of the same state and `sparse` its latents, which then are not computed again.
    Raises what `apply_edits` raises, InvalidEdit for more than one image, and ComputationFailed.
    """
    x = state.x
    if x.shape[0] != 1:
        raise InvalidEdit(f"the effect of a plan is of one image, got {x.shape[0]}")
    only = torch.zeros(1, dtype=torch.long, device=x.device)
    logits = None
    if needs_logits(plan.conditions):
        # A condition on the prediction has to know it before the edit can be made.
        if unedited is None:
            unedited = suffix_embeddings(tower, state, x, only)
        logits = readout.logits(unedited)
    if sparse is None:
        sparse = sae.encode_sparse(x[0].to(sae.W_dec.dtype))
    read_latents = partial(HeldLatents(sparse, x.shape[1]), only)
    edited = apply_edits(tower, sae, x, [plan], logits=logits, readout=readout, read_latents=read_latents)
    changed = bool(edited.changed.any())

    pieces: dict[str, Tensor] = {} if unedited is not None else {"before": x}
    if changed:
        if not bool(torch.isfinite(edited.x).all()):
            raise ComputationFailed(f"the edits push the activations beyond what {x.dtype} can hold")
        pieces["after"] = edited.x
        if n_controls:
            generator = torch.Generator().manual_seed(seed)
            delta = edited.x[0].double() - x[0].double()
            turned = rotated_deltas(delta, n_controls, generator)
            pieces["random_directions"] = (x.double() + turned).to(x.dtype)
            others = matched_plans(tower, sae, sparse, plan, n_controls, generator, firing_rates)
            if others:
                pieces["matched_latents"] = apply_edits(tower, sae, x, others, read_latents=read_latents).x
    if plan.drop_error:
        pieces["reconstruction_only"] = apply_edits(
            tower, sae, x, [EditPlan(scope=plan.scope, drop_error=True)]
        ).x

    parts: dict[str, Tensor] = {} if unedited is None else {"before": unedited}
    if pieces:
        rows = torch.cat(list(pieces.values()))
        embeddings = suffix_embeddings(tower, state, rows, only.expand(len(rows)), batch_size)
        parts |= zip(pieces, torch.split(embeddings, [len(p) for p in pieces.values()]), strict=True)
    parts.setdefault("after", parts["before"])

    # Always in two rows, so that the answer before has the same bits whatever the edit; where nothing changed the
    # first row is both answers, as two equal rows of one product need not have equal bits.
    pair = torch.cat([parts["before"], parts["after"]])
    predictions, targets = readout.predictions(pair), y(pair).double().tolist()
    if not changed:
        predictions[1], targets[1] = predictions[0], targets[0]
    ours = [(target, int(np.argmax(p.logits))) for p, target in zip(predictions, targets, strict=True)]
    alone = parts.get("reconstruction_only")
    controls: list[Controls] = []
    for kind in ("random_directions", "matched_latents"):
        if kind in parts:
            drawn = np.argmax(readout.logits(parts[kind]).double().cpu().numpy(), axis=1)
            values = y(parts[kind]).double().cpu().numpy()
            controls.append(judge(kind, ours[0], ours[1], values, drawn))
    return Effect(
        before=predictions[0],
        after=predictions[1],
        diagnostics=diagnose(sae, x, edited, plan, sparse=sparse),
        controls=tuple(controls),
        target=target,
        target_before=targets[0],
        target_after=targets[1],
        reconstruction_only=None if alone is None else readout.predictions(alone)[0],
    )
