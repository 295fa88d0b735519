"""What plans change, row by row: one pass of the prefix for all of them, full batches of the suffix."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.engine.suffix_queue import SuffixQueue, Tags
from fulcrum.science.steering.edits import EditPlan, apply_edits, check_plan

if TYPE_CHECKING:
    from fulcrum.engine.dataset_runs import DatasetRun, Numbers, Progress

# Rows that are edited in one go: bounds the memory of their latents.
_EDITED_AT_ONCE = 128


@dataclass(frozen=True)
class PlanRows:
    """Embeddings of the rows that changed: `embeddings[i]` is of image `numbers[i]` under plan `plans[i]`.

    Ordered by plan and image. What is not listed has the unedited embedding.
    """

    plans: "Numbers"
    numbers: "Numbers"
    embeddings: NDArray[np.float32]

    @classmethod
    def of(cls, tags: Sequence[Tags], embeddings: Sequence[Tensor], d_embed: int) -> "PlanRows":
        """From the pieces of a queue whose tags are (plan, image)."""
        where = np.concatenate([*tags, np.zeros((0, 2), dtype=np.int64)])
        parts = [e.float().cpu().numpy() for e in embeddings]
        values = np.concatenate([*parts, np.zeros((0, d_embed), dtype=np.float32)])
        order = np.lexsort((where[:, 1], where[:, 0]))
        return cls(where[order, 0], where[order, 1], values[order])


@torch.no_grad()
def plan_rows(
    run: "DatasetRun", plans: Sequence[EditPlan], numbers: "Numbers", progress: "Progress | None" = None
) -> PlanRows:
    """The rows of `plans` among images `numbers` (each at most once). Raises what `check_plan` raises."""
    steerable = run.steerable
    for plan in plans:
        check_plan(steerable.tower, steerable.sae, plan)
    touched = [run.affected(plan, numbers) for plan in plans]
    union = np.unique(np.concatenate(touched)) if touched else numbers[:0]
    is_touched = np.zeros((len(plans), len(union)), dtype=bool)
    for i, images in enumerate(touched):
        is_touched[i, np.searchsorted(union, images)] = True
    tags: list[Tags] = []
    embeddings: list[Tensor] = []

    def keep(which: Tags, rows: Tensor) -> None:
        tags.append(which)
        embeddings.append(rows)

    queue = SuffixQueue(steerable.tower, keep)
    done = 0
    for chunk, state in run.states(union):
        pairs = np.argwhere(is_touched[:, np.searchsorted(union, chunk)])  # (plan, row of the chunk)
        base = run.base_embeddings_of(chunk)
        held = run.held_latents(chunk)
        logits = run.head.logits(base)
        for start in range(0, len(pairs), _EDITED_AT_ONCE):
            part = pairs[start : start + _EDITED_AT_ONCE]
            images, local = np.unique(part[:, 1], return_inverse=True)
            at = torch.from_numpy(images).to(state.x.device)
            edited = apply_edits(
                steerable.tower,
                steerable.sae,
                state.x[at],
                [plans[i] for i in part[:, 0]],
                torch.from_numpy(local),
                logits=logits[at],
                readout=run.head,
                read_latents=None if held is None else partial(held, at),
            )
            changed = edited.changed_rows
            of = part[changed.cpu().numpy()]
            carry = None if state.carry is None else state.carry[torch.from_numpy(of[:, 1]).to(at.device)]
            queue.add(np.stack([of[:, 0], chunk[of[:, 1]]], axis=1), edited.x[changed], carry)
        done += len(chunk)
        if progress is not None:
            progress(done, len(union))
    queue.finish()
    run.counts.suffix_rows += queue.n_rows
    return PlanRows.of(tags, embeddings, run.index.layout.d_embed)


def predictions(run: "DatasetRun", rows: PlanRows, numbers: "Numbers", n_plans: int) -> NDArray[np.int64]:
    """(n_plans, len(numbers)) predicted classes; `numbers` ascend."""
    predicted = np.repeat(run.base_logits_of(numbers).argmax(axis=1)[None], n_plans, axis=0)
    if len(rows.numbers):
        logits: Any = run.logits_of(torch.from_numpy(rows.embeddings).to(run.device))
        predicted[rows.plans, np.searchsorted(numbers, rows.numbers)] = logits.argmax(axis=1)
    return predicted
