"""The answer of the model over a grid of gains."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fulcrum.domain.edits import Scale, Scope
from fulcrum.domain.errors import InvalidEdit, InvalidSettings
from fulcrum.domain.results import DoseResponse
from fulcrum.domain.tasks import Target
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import HeldLatents, SparseLatents
from fulcrum.science.steering.conditions import Readout
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.steering.flips import first_bracket, narrow
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.vision.split import HookState, SplitTower


@torch.no_grad()
def dose_response(
    tower: SplitTower,
    state: HookState,
    sae: Sae,
    latents: Sequence[int],
    gains: Sequence[float],
    readout: Readout,
    target: Target,
    y: Callable[[Tensor], Tensor],
    *,
    scope: Scope | None = None,
    tolerance: float | None = 0.01,
    batch_size: int = 64,
    unedited: Tensor | None = None,
    sparse: SparseLatents | None = None,
) -> DoseResponse:
    """All gains (returned ascending, doubles once) on all `latents` of the one image, in one batched pass.

    The flip nearest to gain 1 is then narrowed to `tolerance` by some 15 more rows a round; None leaves the
    bracket of the grid. `monotone`: the target over the gains never turns by more than rounding. `unedited` may
    bring the embedding (1, d_embed) of the same state, and `sparse` its latents.
    Raises InvalidSettings for no gains or a tolerance <= 0, and what `apply_edits` raises.
    """
    if len(gains) == 0 or len(latents) == 0:
        raise InvalidSettings(f"a dose-response needs gains and latents, got {len(gains)} and {len(latents)}")
    if tolerance is not None and not tolerance > 0:
        raise InvalidSettings(f"tolerance is {tolerance}: it must be > 0")
    if state.x.shape[0] != 1:
        raise InvalidEdit(f"a dose-response is of one image, got {state.x.shape[0]}")
    grid = np.unique(np.asarray(gains, dtype=np.float64))

    def plan(gain: float) -> EditPlan:
        return EditPlan(tuple(Scale(latent, gain) for latent in latents), scope or Scope())

    if sparse is None:
        sparse = sae.encode_sparse(state.x[0].to(sae.W_dec.dtype))
    held = HeldLatents(sparse, state.x.shape[1])
    plans = [plan(float(g)) for g in grid]
    steered = steered_embeddings(tower, state, sae, plans, before=unedited, batch_size=batch_size, held=held)
    logits = readout.logits(steered.after).double().cpu().numpy()
    unedited_class = int(np.argmax(readout.logits(steered.before).double().cpu().numpy()[0]))

    def flipped(more: Sequence[float]) -> list[bool]:
        again = steered_embeddings(
            tower,
            state,
            sae,
            [plan(g) for g in more],
            before=steered.before,
            batch_size=batch_size,
            held=held,
        )
        return [
            bool(top != unedited_class)
            for top in np.argmax(readout.logits(again.after).double().cpu().numpy(), axis=1)
        ]

    bracket = first_bracket(grid.tolist(), (np.argmax(logits, axis=1) != unedited_class).tolist())
    if bracket is not None and tolerance is not None:
        bracket = narrow(bracket, flipped, tolerance)
    values = y(steered.after).double().cpu().numpy()
    return DoseResponse(
        gains=grid,
        logits=logits,
        class_names=readout.class_names,
        target_values=values,
        target=target,
        flip_interval=None if bracket is None else (min(bracket), max(bracket)),
        monotone=_is_monotone(values),
    )


def _is_monotone(values: np.ndarray) -> bool:
    steps = np.diff(values)
    rounding = 1e-5 * max(1.0, float(np.abs(values).max()))
    return bool((steps >= -rounding).all() or (steps <= rounding).all())
