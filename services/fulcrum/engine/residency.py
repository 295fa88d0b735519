"""Models, split towers, SAEs and class heads: loaded once, dropped when the budget is full."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fulcrum.domain.errors import SaeDoesNotFit
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import ModelRef, SaeInfo
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.batched_tower import BatchedTower
from fulcrum.engine.batching import Batcher
from fulcrum.engine.byte_lru import ByteLru
from fulcrum.engine.encoding import embed_class_set
from fulcrum.engine.untrained import UNTRAINED, untrained_sae
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.storage import check_fits, load_sae, read_quality, sae_sha256
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.loading import load_model
from fulcrum.science.vision.split import SplitTower
from fulcrum.science.vision.towers import split_tower

_DEFAULT_BUDGET_BYTES = 8 << 30


@dataclass(frozen=True)
class Steerable:
    """A model cut at an SAE's hook point, and that SAE."""

    loaded: LoadedModel
    tower: SplitTower
    sae: Sae
    sae_info: SaeInfo


class Residency:
    """Everything by what identifies it: two names of one model share no entry, two calls of one name do."""

    def __init__(
        self,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        budget_bytes: int = _DEFAULT_BUDGET_BYTES,
        batcher: Batcher | None = None,
    ) -> None:
        """With a `batcher`, towers share their forwards with other requests."""
        self.device, self.dtype = device, dtype
        self.batcher = batcher
        self._models: ByteLru[ModelRef, LoadedModel] = ByteLru(budget_bytes)
        self._saes: ByteLru[tuple[ModelRef, str], Steerable] = ByteLru(budget_bytes // 4)
        self._heads: ByteLru[tuple[ModelRef, ClassSet], ZeroShotHead] = ByteLru(256 << 20)

    def models(self) -> list[LoadedModel]:
        """Those which are loaded, the one used last at the end."""
        return self._models.values()

    def model(self, ref: ModelRef) -> LoadedModel:
        """Raises UnknownModel, CorruptCheckpoint."""

        def make() -> tuple[LoadedModel, int]:
            loaded = load_model(ref, device=self.device, dtype=self.dtype)
            return loaded, loaded.info.n_parameters * self.dtype.itemsize

        return self._models.get_or_make(ref, make)

    def steerable(self, ref: ModelRef, sae: str) -> Steerable:
        """Raises UnknownSae, CorruptCheckpoint, SaeDoesNotFit and what `model` raises."""

        def make() -> tuple[Steerable, int]:
            made = self._make_steerable(self.model(ref), sae)
            return made, 2 * made.sae.W_enc.numel() * 4

        return self._saes.get_or_make((ref, sae), make)

    def _make_steerable(self, loaded: LoadedModel, sae: str) -> Steerable:
        if sae.startswith(UNTRAINED):
            module, name, quality = untrained_sae(sae, loaded), sae, {}
        else:
            folder = Path(sae)
            module, name, quality = load_sae(folder), folder.name, read_quality(folder)
        if not module.config.hook_point:
            raise SaeDoesNotFit(f"the SAE {name!r} does not say at which hook point it was trained")
        hook_point = HookPoint.parse(module.config.hook_point)
        tower = split_tower(loaded, hook_point)
        check_fits(
            module, d_in=tower.d_in, hook_point=str(hook_point), model_sha256=loaded.info.weights_sha256
        )
        config = module.config
        info = SaeInfo(
            name=name,
            weights_sha256=sae_sha256(module),
            variant=config.variant,
            d_in=config.d_in,
            d_sae=config.d_sae,
            hook_point=hook_point,
            model_name=config.model_name,
            quality=quality,
        )
        module = module.to(self.device).eval().requires_grad_(False)
        if self.batcher is not None:
            return Steerable(
                loaded, BatchedTower(tower, self.batcher, loaded.info.weights_sha256), module, info
            )
        return Steerable(loaded, tower, module, info)

    def head(self, ref: ModelRef, task: ClassSet) -> ZeroShotHead:
        """Class embeddings of a task, encoded once. Raises InvalidPrompt."""

        def make() -> tuple[ZeroShotHead, int]:
            loaded = self.model(ref)
            embeddings = embed_class_set(loaded, task, self.batcher)
            info = loaded.info
            head = ZeroShotHead(
                task.names,
                embeddings,
                info.logit_scale,
                info.logit_bias,
                loaded.probs_kind,
            )
            return head, embeddings.numel() * embeddings.element_size()

        return self._heads.get_or_make((ref, task), make)
