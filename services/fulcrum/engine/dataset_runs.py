"""A correction over a data set: only the images that it can change, and the naive twin that runs them all.

`scale`, `cap` and their like change nothing where the latent does not fire, and a condition that does not hold
changes nothing at all (VALIDATION.md 4). The index says which images are left; these go through prefix and suffix
in batches of the one fixed size, so their activations are bit-equal to those of a full run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.edits import acts_only_where_it_fires
from fulcrum.domain.errors import InvalidDataset
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.image_batches import BATCH_SIZE, ImageBatch, image_batches
from fulcrum.engine.plan_rows import plan_rows
from fulcrum.engine.residency import Steerable
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.sparse import HeldLatents, SparseLatents
from fulcrum.science.steering.conditions import conditions_met
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import suffix_embeddings
from fulcrum.science.vision.split import HookState

Numbers = NDArray[np.int64]
Logits = NDArray[np.float64]
# Called with (images done, images in all).
Progress = Callable[[int, int], None]

_STATES_BUDGET_BYTES = 2 << 30
_LOGIT_ROWS = 256


@dataclass
class RunCounts:
    """What a run cost: images through the prefix, rows through the suffix."""

    prefix_images: int = 0
    suffix_rows: int = 0


class DatasetRun:
    """One model, SAE, data set and class set. The unedited answers come from the index, never from a forward pass."""

    def __init__(
        self,
        steerable: Steerable,
        head: ZeroShotHead,
        task: ClassSet,
        dataset: Dataset,
        index: LatentIndex,
        states_budget_bytes: int = _STATES_BUDGET_BYTES,
    ) -> None:
        """Raises InvalidDataset when labels of the data set are not in the class set."""
        self.steerable, self.head, self.task = steerable, head, task
        self.dataset, self.index = dataset, index
        strangers = sorted(set(dataset.labels.tolist()) - set(task.names) - {""})
        if strangers:
            raise InvalidDataset(
                f"labels {strangers[:5]} of {dataset.name!r} are not in the class set {list(task.names)[:20]}"
            )
        place = {name: i for i, name in enumerate(task.names)}
        # (n,) class numbers, -1 where there is no label
        self.labels = np.array([place.get(label, -1) for label in dataset.labels.tolist()], dtype=np.int64)
        self.counts = RunCounts()
        self._states: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._states_budget = states_budget_bytes
        self._states_bytes = 0
        layout = index.layout
        # Rounded ones would be other activations than those of a full run, and a carry is not stored.
        self._index_keeps_exactly = (
            layout.d_in > 0
            and layout.activation_dtype == "float32"
            and steerable.loaded.dtype == torch.float32
            and steerable.sae_info.hook_point.site == "resid_post"
        )
        self.device = steerable.loaded.device

    @cached_property
    def base_embeddings(self) -> Tensor:
        """(n, d_embed) of all images; parts of a run read those of theirs with `base_embeddings_of`."""
        return torch.from_numpy(self.index.embeddings()).to(self.device)

    @cached_property
    def base_logits(self) -> Logits:
        """(n, n_classes) of all images."""
        return self.logits_of(self.base_embeddings)

    def base_embeddings_of(self, numbers: Numbers) -> Tensor:
        """(len(numbers), d_embed), read from the index."""
        return torch.from_numpy(self.index.embeddings(numbers)).to(self.device)

    def base_logits_of(self, numbers: Numbers) -> Logits:
        """(len(numbers), n_classes); the same bits whatever images are asked for together."""
        return self.logits_of(self.base_embeddings_of(numbers))

    def affected(self, plan: EditPlan, numbers: Numbers) -> Numbers:
        """Those of `numbers` that the plan can change, ascending.

        A superset of those that it does change (an image whose latent fires at a patch that never reaches the
        output is in it), and exact for edits that act where their latent fires.
        """
        wanted = np.unique(numbers)
        if plan.drop_error or not all(acts_only_where_it_fires(e) for e in plan.edits):
            touched = wanted
        else:
            acting = [e for e in plan.edits if not (e.kind == "scale" and e.gain == 1)]
            above = [e.value if e.kind == "cap" else 0.0 for e in acting]
            fires = self.index.affected([e.latent for e in acting], plan.scope, above)
            touched = np.intersect1d(fires, wanted)
        if plan.conditions and len(touched):
            touched = touched[self.condition_met(plan, touched)]
        return touched

    def condition_met(self, plan: EditPlan, numbers: Numbers) -> NDArray[np.bool_]:
        """(len(numbers),) whether the plan's conditions hold, from the index and the base answers alone."""
        met = conditions_met(
            plan.conditions,
            lambda latent: torch.from_numpy(self._image_maxima(latent, numbers)),
            torch.from_numpy(self.base_logits_of(numbers)),
            self.head.class_names,
            len(numbers),
        )
        return met.numpy()

    def _image_maxima(self, latent: int, numbers: Numbers) -> NDArray[np.floating[Any]]:
        images, values = self.index.image_max(latent)
        dense = np.zeros(len(self.dataset), dtype=np.float32)
        dense[images] = values
        return dense[numbers]

    def logits_of(self, embeddings: Tensor) -> Logits:
        """Logits of embeddings with any leading dimensions; a row has the same bits whoever stands beside it."""
        flat = embeddings.flatten(0, -2)
        parts = [np.zeros((0, len(self.head.class_names)))]
        for start in range(0, len(flat), _LOGIT_ROWS):
            rows = flat[start : start + _LOGIT_ROWS]
            # A product of matrices rounds differently for another number of rows.
            missing = _LOGIT_ROWS - len(rows)
            full = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
            parts.append(self.head.logits(full)[: len(rows)].double().cpu().numpy())
        return np.concatenate(parts).reshape(*embeddings.shape[:-1], len(self.head.class_names))

    def corrected_logits(self, plan: EditPlan, numbers: Numbers, progress: Progress | None = None) -> Logits:
        """(len(numbers), n_classes) with the plan applied; the base logits where it changes nothing."""
        return self.logits_of(self.corrected_embeddings(plan, numbers, progress))

    def corrected_logits_of_many(
        self, plans: Sequence[EditPlan], numbers: Numbers, progress: Progress | None = None
    ) -> Logits:
        """(n_plans, len(numbers), n_classes); an image that several plans touch goes through the prefix once."""
        return self.logits_of(self.corrected_embeddings_of_many(plans, numbers, progress))

    def corrected_embeddings(
        self, plan: EditPlan, numbers: Numbers, progress: Progress | None = None
    ) -> Tensor:
        """(len(numbers), d_embed) with the plan applied, not normalised."""
        return self.corrected_embeddings_of_many([plan], numbers, progress)[0]

    def corrected_embeddings_of_many(
        self, plans: Sequence[EditPlan], numbers: Numbers, progress: Progress | None = None
    ) -> Tensor:
        """(n_plans, len(numbers), d_embed). Raises what `check_plan` raises."""
        numbers = np.asarray(numbers, dtype=np.int64)
        wanted = np.unique(numbers)
        rows = plan_rows(self, plans, wanted, progress)
        embeddings = self.base_embeddings_of(wanted).repeat(len(plans), 1, 1)
        at = torch.from_numpy(np.searchsorted(wanted, rows.numbers)).to(self.device)
        changed = torch.from_numpy(rows.embeddings).to(embeddings)
        embeddings[torch.from_numpy(rows.plans).to(self.device), at] = changed
        if len(wanted) == len(numbers) and (wanted == numbers).all():
            return embeddings
        return embeddings[:, torch.from_numpy(np.searchsorted(wanted, numbers)).to(self.device)]

    def held_latents(self, numbers: Numbers) -> HeldLatents | None:
        """The latents of these images from the index; None where it keeps them rounded, or maxima only."""
        if self.index.layout.value_dtype != "float32" or self.index.layout.dense:
            return None
        known = self.index.images(numbers)
        device = self.device
        sparse = SparseLatents(
            torch.from_numpy(known.offsets).to(device),
            torch.from_numpy(known.latents).to(device),
            torch.from_numpy(known.values).to(device),
            known.d_sae,
        )
        return HeldLatents(sparse, self.steerable.tower.n_tokens)

    @torch.no_grad()
    def recomputed_embeddings(
        self, numbers: Numbers, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Unedited embeddings from a new forward pass instead of the index, at any batch size."""
        parts = [np.zeros((0, self.index.layout.d_embed), dtype=np.float32)]
        done = 0
        for batch in image_batches(self.steerable.loaded, self.dataset, numbers, batch_size):
            state = prefix_of(self.steerable, batch)
            parts.append(embeddings_of(self.steerable, state, batch_size).float().cpu().numpy())
            done += len(batch.numbers)
            if progress is not None:
                progress(done, len(numbers))
        return np.concatenate(parts)

    @torch.no_grad()
    def image_maxima_before_and_after(
        self, plan: EditPlan, numbers: Numbers
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image maxima (n, d_sae) of all latents, of x and re-encoded from x'. Dense: for some hundred images."""
        before = np.zeros((len(numbers), self.steerable.sae.config.d_sae), dtype=np.float32)
        after = np.zeros_like(before)
        place = {int(n): i for i, n in enumerate(numbers)}
        sae = self.steerable.sae
        for chunk, state in self.states(np.asarray(numbers, dtype=np.int64)):
            base = self.base_embeddings_of(chunk)
            edited = apply_edits(
                self.steerable.tower,
                sae,
                state.x,
                [plan] * len(chunk),
                logits=self.head.logits(base),
                readout=self.head,
            )
            rows = [place[int(n)] for n in chunk]
            before[rows] = sae.encode(state.x.to(sae.W_dec.dtype)).amax(dim=1).float().cpu().numpy()
            after[rows] = sae.encode(edited.x.to(sae.W_dec.dtype)).amax(dim=1).float().cpu().numpy()
        return before, after

    def states(self, numbers: Numbers) -> Iterator[tuple[Numbers, HookState]]:
        """Activations of the images, in pieces of a batch; kept between calls as far as the budget goes.

        What is neither kept nor stored in the index goes through the prefix.
        """
        kept = np.array([n for n in numbers.tolist() if n in self._states], dtype=np.int64)
        for start in range(0, len(kept), BATCH_SIZE):
            chunk = kept[start : start + BATCH_SIZE]
            parts = [self._states[int(n)] for n in chunk]
            carry = None if parts[0][1] is None else torch.stack([p[1] for p in parts if p[1] is not None])
            yield chunk, HookState(torch.stack([p[0] for p in parts]), carry)
        others = np.array([n for n in numbers.tolist() if n not in self._states], dtype=np.int64)
        is_stored = np.array([self._is_stored(n) for n in others.tolist()], dtype=bool)
        stored, missing = others[is_stored], others[~is_stored]
        for start in range(0, len(stored), BATCH_SIZE):
            chunk = stored[start : start + BATCH_SIZE]
            x = np.stack([np.asarray(self.index.activations(int(n))) for n in chunk])
            yield chunk, HookState(torch.from_numpy(x).to(self.device))
        for batch in image_batches(self.steerable.loaded, self.dataset, missing):
            state = prefix_of(self.steerable, batch)
            self.counts.prefix_images += len(batch.numbers)
            for row, number in enumerate(batch.numbers.tolist()):
                self._keep(number, state, row)
            yield batch.numbers, state

    def _is_stored(self, number: int) -> bool:
        return self._index_keeps_exactly and self.index.activations(number) is not None

    def _keep(self, number: int, state: HookState, row: int) -> None:
        size = state.x[row].numel() * state.x.element_size() * (1 if state.carry is None else 2)
        if self._states_bytes + size > self._states_budget:
            return
        self._states_bytes += size
        self._states[number] = (
            state.x[row].clone(),
            None if state.carry is None else state.carry[row].clone(),
        )

    def naive_logits(
        self, plan: EditPlan, numbers: Numbers, progress: Progress | None = None, *, base: bool = True
    ) -> tuple[Logits, Logits]:
        """Base and corrected logits from a full run of every image: the slow twin of `corrected_logits`.

        With `base` False the base answers are taken as known, so that the run costs one steered pass.
        """
        steerable = self.steerable
        unedited, corrected = [], []
        done = 0
        for batch in image_batches(steerable.loaded, self.dataset, numbers):
            state = prefix_of(steerable, batch)
            before = self.base_embeddings_of(batch.numbers)
            if base:
                before = embeddings_of(steerable, state)
            edited = apply_edits(
                steerable.tower,
                steerable.sae,
                state.x,
                [plan] * len(batch.numbers),
                logits=self.head.logits(before),
                readout=self.head,
            )
            after = embeddings_of(steerable, state.with_x(edited.x))
            unedited.append(self.logits_of(before))
            corrected.append(self.logits_of(after))
            done += len(batch.numbers)
            if progress is not None:
                progress(done, len(numbers))
        return np.concatenate(unedited), np.concatenate(corrected)


@torch.no_grad()
def prefix_of(steerable: Steerable, batch: ImageBatch) -> HookState:
    """Activations of a batch without its padding rows."""
    return steerable.tower.prefix(batch.pixels).rows(slice(0, len(batch.numbers)))


@torch.no_grad()
def embeddings_of(steerable: Steerable, state: HookState, n_padded: int = BATCH_SIZE) -> Tensor:
    """Unedited embeddings, padded to the fixed size like every other pass."""
    n = state.x.shape[0]
    rows = torch.arange(n, device=state.x.device)
    if n < n_padded:
        rows = torch.cat([rows, rows[-1:].expand(n_padded - n)])
    padded = state.rows(rows)
    return suffix_embeddings(
        steerable.tower, padded, padded.x, torch.arange(n_padded, device=rows.device), n_padded
    )[:n]
