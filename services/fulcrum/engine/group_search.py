"""The search over a failure group, on top of an index."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import InvalidDataset
from fulcrum.domain.results import GroupSuggestion
from fulcrum.engine.dataset_runs import DatasetRun, Numbers, Progress
from fulcrum.science.search.group import group_search
from fulcrum.science.search.group_images import HeldGroup
from fulcrum.science.vision.split import HookState

_MAX_IMAGES = 4000


def suggest_for_group(
    run: DatasetRun,
    group: Numbers,
    clean: Numbers,
    *,
    scope: Scope | None = None,
    gain: float = 0.0,
    max_clean_loss: float = 0.01,
    max_edits: int = 64,
    budget: int = 2000,
    doses: Sequence[float] = (),
    note: str = "",
    on_prefix: Progress | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> GroupSuggestion:
    """A correction which mends the images of `group` and leaves those of `clean` alone, found greedily.

    Both are images with labels, of the discovery split: what is found here is proven elsewhere. All of them go
    through the prefix once and stay in memory.
    Raises InvalidDataset for an empty group, no clean images, an overlap of the two, or more than 4000 images.
    """
    group, clean = np.unique(group), np.unique(clean)
    if not len(group) or not len(clean):
        raise InvalidDataset(
            f"the search needs images of the failure group and clean ones, got {len(group)} and {len(clean)}"
        )
    both = np.intersect1d(group, clean)
    if len(both):
        raise InvalidDataset(f"{len(both)} images are in the failure group and among the clean ones")
    numbers = np.concatenate([group, clean])
    if len(numbers) > _MAX_IMAGES:
        raise InvalidDataset(
            f"the search holds {len(numbers)} images in memory: at most {_MAX_IMAGES} are allowed"
        )
    labels = run.labels[numbers]
    if (labels < 0).any():
        first = run.dataset.samples[int(numbers[int(np.argmax(labels < 0))])].id
        raise InvalidDataset(
            f"image {first!r} has no label of the class set: the search needs one for each image"
        )

    state = _held(run, numbers, on_prefix)
    known = run.held_latents(numbers)
    held = HeldGroup(
        run.steerable.tower,
        run.steerable.sae,
        state,
        run.head,
        labels.tolist(),
        [True] * len(group) + [False] * len(clean),
        scope=scope,
        gain=gain,
        sparse=None if known is None else known.sparse,
    )
    found = group_search(
        held,
        held.rank,
        max_clean_loss=max_clean_loss,
        max_edits=max_edits,
        budget=budget,
        doses=doses,
        progress=on_step,
    )
    correction = Correction(
        model_sha256=run.steerable.loaded.info.weights_sha256,
        sae_sha256=run.steerable.sae_info.weights_sha256,
        hook_point=str(run.steerable.sae_info.hook_point),
        edits=found.edits,
        scope=scope or Scope(),
        task=run.task,
        origin=Origin(
            "group_search",
            image_sha256=tuple(run.dataset.bytes_sha256[int(n)] for n in numbers),
            dataset_digest=run.dataset.digest,
            note=note,
        ),
    )
    return found.suggestion(correction)


def _held(run: DatasetRun, numbers: Numbers, progress: Progress | None) -> HookState:
    """Activations of all images in the order of `numbers`."""
    place = {int(n): i for i, n in enumerate(numbers)}
    x: torch.Tensor | None = None
    carry: torch.Tensor | None = None
    done = 0
    for chunk, state in run.states(numbers):
        if x is None:
            x = state.x.new_empty(len(numbers), *state.x.shape[1:])
            carry = (
                None if state.carry is None else state.carry.new_empty(len(numbers), *state.carry.shape[1:])
            )
        rows = torch.tensor([place[int(n)] for n in chunk], device=state.x.device)
        x[rows] = state.x
        if carry is not None and state.carry is not None:
            carry[rows] = state.carry
        done += len(chunk)
        if progress is not None:
            progress(done, len(numbers))
    assert x is not None  # the group is not empty
    return HookState(x, carry)
