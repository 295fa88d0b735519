"""Models, split towers, SAEs and class heads: loaded once, dropped when the budget is full."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fulcrum.domain.errors import SaeDoesNotFit
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import UNITS, ModelRef, SaeInfo
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.batched_tower import BatchedTower
from fulcrum.engine.batching import Batcher
from fulcrum.engine.byte_lru import ByteLru
from fulcrum.engine.encoding import computed_by, embed_class_set
from fulcrum.engine.language_models import (
    LanguageModel,
    LanguageModelInfo,
    LanguageSource,
    load_language_model,
)
from fulcrum.engine.residents import ResidentCounts, Residents
from fulcrum.engine.units import units_of, units_sha256
from fulcrum.engine.untrained import UNTRAINED, untrained_sae
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.storage import check_fits, load_sae, read_quality, sae_sha256
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.loading import load_model
from fulcrum.science.vision.split import SplitTower
from fulcrum.science.vision.towers import split_tower

_HEADS_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True)
class Steerable:
    """A model cut at an SAE's hook point, and that SAE."""

    loaded: LoadedModel
    tower: SplitTower
    sae: Sae
    sae_info: SaeInfo


@dataclass(frozen=True)
class _LoadedSae:
    module: Sae
    info: SaeInfo


class Residency:
    """Everything by what identifies it: two names of one model share no entry, two calls of one name do.

    Models and SAEs are loaded once, in the background, and share `budget_bytes` (None: no limit). Those that a
    request got inside its `request_scope` are in use until the scope ends and are never dropped before. While
    something is loaded the budget may be exceeded by it, because its size is known only then.
    """

    def __init__(
        self,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        budget_bytes: int | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        """With a `batcher`, towers share their forwards with other requests."""
        self.device, self.dtype = device, dtype
        self.batcher = batcher
        self._residents: Residents[Hashable, LoadedModel | _LoadedSae | LanguageModel] = Residents(
            budget_bytes
        )
        self._language_infos: dict[LanguageSource, LanguageModelInfo] = {}
        self._heads: ByteLru[tuple[ModelRef, str, ClassSet], ZeroShotHead] = ByteLru(_HEADS_BUDGET_BYTES)

    @property
    def counts(self) -> ResidentCounts:
        """Loads, evictions, bytes and users of models and SAEs."""
        return self._residents.counts

    def models(self) -> list[LoadedModel]:
        """Those which are loaded, the one used last at the end."""
        return [value for value in self._residents.values() if isinstance(value, LoadedModel)]

    def loading(self) -> list[ModelRef]:
        """Models which are being loaded."""
        return [key for key in self._residents.loading() if isinstance(key, ModelRef)]

    def model(self, ref: ModelRef) -> LoadedModel:
        """Raises UnknownModel, CorruptCheckpoint, OutOfMemory."""

        def load() -> tuple[LoadedModel, int]:
            loaded = load_model(ref, device=self.device, dtype=self.dtype)
            return loaded, loaded.info.n_parameters * self.dtype.itemsize

        loaded = self._residents.get(ref, load)
        assert isinstance(loaded, LoadedModel)
        return loaded

    def language_model(self, source: LanguageSource) -> LanguageModel:
        """One is kept at a time, under the same budget: another takes its place.

        Raises as `load_language_model` does, and OutOfMemory.
        """

        def load() -> tuple[LanguageModel, int]:
            made = load_language_model(source, self.device, self.dtype)
            return made, made.size_bytes

        self.drop_language_models(but=source)
        loaded = self._residents.get(source, load)
        assert isinstance(loaded, LanguageModel)
        self._language_infos[source] = loaded.info
        return loaded

    def language_info(self, source: LanguageSource) -> LanguageModelInfo:
        """What was read when it was loaded last; loads one that never was, and no random weights."""
        if source.twin_seed is not None:
            return self.language_info(replace(source, twin_seed=None)).of_twin(source.twin_seed)
        known = self._language_infos.get(source)
        return self.language_model(source).info if known is None else known

    def drop_language_models(self, but: LanguageSource | None = None) -> None:
        """Their memory is free for others."""
        self._residents.drop(lambda key: isinstance(key, LanguageSource) and key != but)

    def steerable(self, ref: ModelRef, sae: str) -> Steerable:
        """Raises UnknownSae, CorruptCheckpoint, SaeDoesNotFit and what `model` raises."""
        loaded = self.model(ref)

        def load() -> tuple[_LoadedSae, int]:
            made = self._load_sae(loaded, sae)
            return made, sum(t.numel() * t.element_size() for t in made.module.state_dict().values())

        # The weights that it was checked against are part of the key: a name may get others.
        held = self._residents.get((ref, loaded.info.weights_sha256, sae), load)
        assert isinstance(held, _LoadedSae)
        # Cut anew for each request: a tower that was kept would keep the model it shares its weights with.
        tower = split_tower(loaded, held.info.hook_point)
        if self.batcher is None:
            return Steerable(loaded, tower, held.module, held.info)
        batched = BatchedTower(tower, self.batcher, computed_by(loaded))
        return Steerable(loaded, batched, held.module, held.info)

    def _load_sae(self, loaded: LoadedModel, sae: str) -> _LoadedSae:
        quality: dict[str, float]
        if sae.startswith(UNTRAINED):
            module, name, quality = untrained_sae(sae, loaded), sae, {}
        elif sae.startswith(UNITS):
            module, name, quality = units_of(sae, loaded), sae, {}
        else:
            folder = Path(sae)
            module, name, quality = load_sae(folder), folder.name, read_quality(folder)
        config = module.config
        if not config.hook_point:
            raise SaeDoesNotFit(f"the SAE {name!r} does not say at which hook point it was trained")
        hook_point = HookPoint.parse(config.hook_point)
        check_fits(
            module,
            d_in=split_tower(loaded, hook_point).d_in,
            hook_point=str(hook_point),
            model_sha256=loaded.info.weights_sha256,
        )
        info = SaeInfo(
            name=name,
            weights_sha256=units_sha256(module) if config.variant == "units" else sae_sha256(module),
            variant=config.variant,
            d_in=config.d_in,
            d_sae=config.d_sae,
            hook_point=hook_point,
            model_name=config.model_name,
            quality=quality,
        )
        return _LoadedSae(module.to(self.device).eval().requires_grad_(False), info)

    def head(self, ref: ModelRef, task: ClassSet) -> ZeroShotHead:
        """Class embeddings of a task, encoded once. Raises InvalidPrompt."""
        loaded = self.model(ref)
        info = loaded.info

        def make() -> tuple[ZeroShotHead, int]:
            embeddings = embed_class_set(loaded, task, self.batcher)
            head = ZeroShotHead(
                task.names,
                embeddings,
                info.logit_scale,
                info.logit_bias,
                loaded.probs_kind,
            )
            # With the copy of unit length in float32 that it keeps.
            return head, embeddings.numel() * (embeddings.element_size() + 4)

        return self._heads.get_or_make((ref, info.weights_sha256, task), make)
