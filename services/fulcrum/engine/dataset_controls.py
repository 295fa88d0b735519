"""Would any push of this size have done it, on a whole failure group? Matched latents, and random directions."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.domain.edits import Edit, ProjectOut, acts_only_where_it_fires
from fulcrum.engine.dataset_runs import DatasetRun, Numbers, Progress
from fulcrum.engine.plan_rows import plan_rows, predictions
from fulcrum.engine.suffix_queue import SuffixQueue, Tags
from fulcrum.science.steering.controls import rotated_deltas, stood_in
from fulcrum.science.steering.edits import EditPlan, apply_edits, check_plan

Predictions = NDArray[np.int64]

# Each latent gives way to one of this many nearest ones: few enough to be alike, enough for 100 different draws.
_NEAREST = 40


def matched_latent_plans(run: DatasetRun, plan: EditPlan, n_draws: int, seed: int) -> list[EditPlan]:
    """`plan` on other latents, matched on firing rate over images and on contribution norm over the data set.

    Distance is Euclidean in (log firing rate, log of mean active value times decoder norm). Latents within a
    plan differ, and none is one of the edited ones. No plans when the SAE has too few other latents that fire.
    """
    statistics = run.index.statistics
    norms = (run.steerable.sae.W_dec / run.steerable.sae.norm_scale).norm(dim=1).double().cpu().numpy()
    rate = np.asarray(statistics.image_rate, dtype=np.float64)
    # Units of a layer take both signs, so that their means say little of their size.
    active = statistics.rms_active if run.index.layout.dense else statistics.mean_active
    size = np.asarray(active, dtype=np.float64) * norms
    edited = [e.latent for e in plan.edits]
    usable = (rate > 0) & (size > 0)
    usable[edited] = False
    candidates = np.flatnonzero(usable)
    # An edit that needs a firing latent and has none does nothing; the others push also where z is 0.
    acting = [e for e in plan.edits if size[e.latent] > 0 or not acts_only_where_it_fires(e)]
    if len(candidates) < max(2, len(acting)) or not acting:
        return []
    place = np.stack([np.log(rate[candidates]), np.log(size[candidates])], axis=1)
    rng = np.random.default_rng([seed, 1])
    pools = []
    for edit in acting:
        # A silent latent has no contribution to match: its stand-ins are the rarest ones.
        rarest = 0.5 / run.index.layout.n_images
        here = np.log([max(rate[edit.latent], rarest), size[edit.latent] or size[candidates].min()])
        distance = np.linalg.norm(place - here, axis=1)
        pools.append(candidates[np.argsort(distance, kind="stable")[: max(_NEAREST, len(acting))]])
    plans = []
    maxima = np.asarray(statistics.max, dtype=np.float64)
    for _ in range(n_draws):
        taken: set[int] = set()
        edits: list[Edit] = []
        for edit, pool in zip(acting, pools, strict=True):
            free = [int(k) for k in pool if int(k) not in taken]
            stand_in = free[int(rng.integers(len(free)))]
            taken.add(stand_in)
            edits.append(stood_in(edit, stand_in, maxima, norms))
        plans.append(EditPlan(tuple(edits), plan.scope, plan.conditions, plan.drop_error))
    return plans


def predictions_of_plans(
    run: DatasetRun, plans: list[EditPlan], numbers: Numbers, progress: Progress | None = None
) -> Predictions:
    """(n_plans, len(numbers)) predicted classes; `numbers` ascend."""
    return predictions(run, plan_rows(run, plans, numbers, progress), numbers, len(plans))


@torch.no_grad()
def random_direction_predictions(
    run: DatasetRun,
    plan: EditPlan,
    numbers: Numbers,
    n_draws: int,
    seed: int,
    progress: Progress | None = None,
) -> Predictions:
    """(n_draws, len(numbers)): the plan's own changes of z, written along randomly turned decoder directions.

    A draw turns all edited directions together, the same on every image and token: norms and the angles between
    them stay, so that every token is pushed exactly as far as by the correction, somewhere else. `numbers` ascend.
    Empty for `project_out` and `drop_error`, whose change is not one of z.
    """
    if plan.drop_error or any(isinstance(e, ProjectOut) for e in plan.edits):
        return np.zeros((0, len(numbers)), dtype=np.int64)
    steerable = run.steerable
    check_plan(steerable.tower, steerable.sae, plan)
    predicted = np.repeat(run.base_logits_of(numbers).argmax(axis=1)[None], n_draws, axis=0)

    def keep(tags: Tags, embeddings: torch.Tensor) -> None:
        at = np.searchsorted(numbers, tags[:, 1])
        predicted[tags[:, 0], at] = run.logits_of(embeddings.float()).argmax(axis=1)

    queue = SuffixQueue(steerable.tower, keep)
    generator = torch.Generator().manual_seed(seed)
    directions: torch.Tensor | None = None
    touched = run.affected(plan, numbers)
    done = 0
    for chunk, state in run.states(touched):
        held = run.held_latents(chunk)
        edited = apply_edits(
            steerable.tower,
            steerable.sae,
            state.x,
            [plan] * len(chunk),
            logits=run.head.logits(run.base_embeddings_of(chunk)),
            readout=run.head,
            read_latents=None if held is None else partial(held, torch.arange(len(chunk), device=run.device)),
        )
        if directions is None:
            directions = rotated_deltas(steerable.sae.directions(edited.latents), n_draws, generator)
        dz = edited.z_edited - edited.z
        moved = torch.nonzero((dz != 0).flatten(1).any(dim=1)).flatten()
        images = chunk[moved.cpu().numpy()]
        x, dz = state.x[moved], dz[moved]
        carry = None if state.carry is None else state.carry[moved]
        for draw in range(n_draws):
            turned = (x.to(dz.dtype) + dz @ directions[draw]).to(x.dtype)
            queue.add(np.stack([np.full(len(images), draw), images], axis=1), turned, carry)
        done += len(chunk)
        if progress is not None:
            progress(done, len(touched))
    queue.finish()
    run.counts.suffix_rows += queue.n_rows
    return predicted
