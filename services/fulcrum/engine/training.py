"""An SAE from the activations of a data set: prefix only, full batches, kept in memory and on disk where they fit."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.results import FloatArray
from fulcrum.engine.activation_store import ActivationStore
from fulcrum.engine.image_batches import BATCH_SIZE, image_batches
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.quality import Faithfulness, Quality, evaluate_sae, faithfulness, untrained_twin
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.source import ActivationSource, SharedSource, own_segments
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.split import HookState
from fulcrum.science.vision.towers import split_tower

_CACHE_BUDGET_BYTES = 4 << 30


class DatasetActivations:
    """Tokens of all images at a hook point, image by image in a seeded order; the trainer's `ActivationSource`.

    The first epoch runs the prefix where `store` has nothing yet; later ones read what was kept, in memory and there,
    and recompute what fitted neither.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        hook_point: HookPoint,
        dataset: Dataset,
        numbers: np.ndarray | None = None,
        seed: int = 0,
        cache_budget_bytes: int = _CACHE_BUDGET_BYTES,
        store: ActivationStore | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Of several processes (`ranks`) each has its own segments of `BATCH_SIZE` images: see `SharedSource`."""
        self._store = store
        self._loaded, self._dataset = loaded, dataset
        self._tower = split_tower(loaded, hook_point)
        chosen = np.arange(len(dataset)) if numbers is None else np.asarray(numbers)
        # Neighbours in a data set are alike; the trainer shuffles within its buffer only.
        order = np.random.default_rng(seed).permutation(chosen).astype(np.int64)
        # Whole batches of images, so that no process runs a part of one.
        self._order = order[own_segments(len(order), BATCH_SIZE, ranks)]
        self.d_in = self._tower.d_in
        self.tokens_per_image = self._tower.n_tokens
        self.n_tokens = len(self._order) * self.tokens_per_image
        self._cache: dict[int, Tensor] = {}
        self._budget = cache_budget_bytes

    def read(self, start: int) -> Iterator[Tensor]:
        """Chunks of whole images from token `start` to the end of the epoch, the first one cut at `start`."""
        first, skip = divmod(start, self.tokens_per_image)
        position = first
        while position < len(self._order):
            kept = self._kept(position)
            if kept is not None:
                yield kept[skip:]
                position, skip = position + 1, 0
                continue
            # As far as nothing is kept, so that batches are full.
            end = position + 1
            while end < len(self._order) and self._kept(end) is None:
                end += 1
            for batch in image_batches(self._loaded, self._dataset, self._order[position:end]):
                with torch.no_grad():
                    x = self._tower.prefix(batch.pixels).x[: len(batch.numbers)]
                for row in x:
                    self._keep(position, row)
                    yield row[skip:]
                    position, skip = position + 1, 0

    def _kept(self, position: int) -> Tensor | None:
        row = self._cache.get(position)
        if row is None and self._store is not None:
            row = self._store.get(int(self._order[position]))
            if row is not None:
                row = row.to(self._loaded.device)
                self._keep_in_memory(position, row)
        return row

    def _keep(self, position: int, row: Tensor) -> None:
        if self._store is not None:
            self._store.put(int(self._order[position]), row)
        self._keep_in_memory(position, row)

    def _keep_in_memory(self, position: int, row: Tensor) -> None:
        size = row.numel() * row.element_size()
        if size <= self._budget:
            self._budget -= size
            self._cache[position] = row.clone()


def training_activations(
    loaded: LoadedModel,
    hook_point: HookPoint,
    dataset: Dataset,
    numbers: np.ndarray,
    seed: int,
    ranks: Ranks = ALONE,
    kept: Path | None = None,
    kept_bytes: int = 0,
) -> ActivationSource:
    """What a training by all `ranks` reads: `DatasetActivations`, each image run by one of them. Under `kept` rows of
    up to `kept_bytes` stay on disk for the next epoch and the next training.
    """
    given = loaded, hook_point, dataset
    store = None
    if kept is not None and kept_bytes:
        # The first makes room: the others must not count what it is removing.
        store = ranks.in_turn(lambda: ActivationStore.open(kept, *given, kept_bytes))
    # On the CPU they share the memory, too.
    budget = _CACHE_BUDGET_BYTES // (ranks.size if loaded.device.type == "cpu" else 1)
    mine = DatasetActivations(*given, numbers, seed, budget, store, ranks)
    if ranks.size == 1:
        return mine
    segment, n_tokens = BATCH_SIZE * mine.tokens_per_image, len(numbers) * mine.tokens_per_image
    return SharedSource(mine, ranks, segment, n_tokens)


@dataclass(frozen=True)
class QualityCard:
    """An SAE beside an untrained one of the same shape: a metric that both pass says nothing."""

    trained: Quality
    untrained: Quality
    model: Faithfulness | None  # None without labels
    model_untrained: Faithfulness | None

    def flat(self) -> dict[str, float]:
        """Numbers by name, for `cfg.json`."""
        card = dict(self.trained.as_dict())
        card |= {f"untrained_{k}": v for k, v in self.untrained.as_dict().items()}
        if self.model is not None:
            card |= self.model.as_dict()
        if self.model_untrained is not None:
            card |= {f"untrained_{k}": v for k, v in self.model_untrained.as_dict().items()}
        return card


def quality_card(
    loaded: LoadedModel,
    sae: Sae,
    dataset: Dataset,
    numbers: np.ndarray,
    head: ZeroShotHead | None = None,
    on_images: Callable[[int, int], None] | None = None,
) -> QualityCard:
    """Reconstruction over the images, and with a class set (`head`) what the model makes of it.

    `on_images` hears of the second; 0 of them are done while the first goes on.
    Use images that the SAE was not trained on. Raises ComputationFailed.
    """
    hook_point = HookPoint.parse(sae.config.hook_point)
    tower = split_tower(loaded, hook_point)
    twin = untrained_twin(sae)
    source = DatasetActivations(loaded, hook_point, dataset, numbers)

    def watched() -> Iterator[Tensor]:
        for chunk in source.read(0):
            if on_images is not None:
                on_images(0, len(numbers))
            yield chunk

    trained = evaluate_sae(sae, watched())
    untrained = evaluate_sae(twin, source.read(0))
    if head is None:
        return QualityCard(trained, untrained, None, None)
    place = {name: i for i, name in enumerate(head.class_names)}
    labels: list[int] = []
    cosines: dict[str, list[FloatArray]] = {n: [] for n in ("original", "trained", "untrained", "zero")}
    done = 0
    for batch in image_batches(loaded, dataset, numbers):
        n = len(batch.numbers)
        with torch.no_grad():
            state = tower.prefix(batch.pixels).rows(slice(0, n))
            variants = {
                "original": state.x,
                "trained": sae(state.x.to(sae.W_dec.dtype)).to(state.x.dtype),
                "untrained": twin(state.x.to(sae.W_dec.dtype)).to(state.x.dtype),
                "zero": torch.zeros_like(state.x),
            }
            for name, x in variants.items():
                embeddings = tower.suffix(HookState(x, state.carry))
                cosines[name].append(head.cosines(embeddings).double().cpu().numpy())
        labels += [place[dataset.samples[int(i)].label or ""] for i in batch.numbers]
        done += n
        if on_images is not None:
            on_images(done, len(numbers))
    together = {name: np.concatenate(parts) for name, parts in cosines.items()}
    y = np.array(labels)

    def judged(name: str) -> Faithfulness:
        return faithfulness(together["original"], together[name], together["zero"], y, head.logit_scale)

    return QualityCard(trained, untrained, judged("trained"), judged("untrained"))


def checkpoint_folder(out: Path, dataset: Dataset, numbers: np.ndarray) -> Path:
    """Where a run on these images keeps its checkpoint: a run on others must not take it for its own."""
    images = hashlib.sha256("".join(dataset.bytes_sha256[int(n)] for n in np.sort(numbers)).encode())
    return out / f"checkpoint-{images.hexdigest()[:12]}"
