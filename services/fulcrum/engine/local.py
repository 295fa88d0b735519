"""LocalEngine: the `InferenceEngine` in this process."""

import os
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fulcrum import __version__
from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import Condition, Edit, Scope
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.errors import EmptyPrompts, InvalidSettings, InvalidTarget, SaeDoesNotFit
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.results import (
    Attribution,
    AttributionMethod,
    DoseResponse,
    Effect,
    FloatArray,
    LatentAttribution,
    Prediction,
    SteeredPrediction,
    Suggestion,
)
from fulcrum.domain.tasks import ClassSet, LogitTarget, MarginTarget, Target
from fulcrum.engine.batching import Batcher
from fulcrum.engine.byte_lru import CacheCounts
from fulcrum.engine.device_memory import tells_full_memory
from fulcrum.engine.encoding import embed_images, embed_texts
from fulcrum.engine.image_batches import BATCH_SIZE
from fulcrum.engine.image_states import ImageState, ImageStates
from fulcrum.engine.residency import Residency, Steerable
from fulcrum.engine.scopes import Figures, current_scope
from fulcrum.science.attribution.ablation import ablate_tokens
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.measured import measure_latents
from fulcrum.science.attribution.methods import METHODS
from fulcrum.science.attribution.targets import ZeroShotHead, target_function
from fulcrum.science.search.minimal_sets import minimal_sets
from fulcrum.science.steering.dose_response import dose_response
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.steering.effect import effect
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.vision.images import decode_image
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.split import HookState

_PREFIX_BUDGET_BYTES = 1 << 30


class LocalEngine:
    """Encodes, attributes and steers with models that live in this process. Safe to call from several threads.

    Attribution, steering, sweeps and suggestions on one image run the prefix once: activations at the hook point are
    kept in a cache of `prefix_budget_bytes`, and their latents in one of a quarter of that. With a `batcher`, rows of
    requests that run at the same time share forwards; each request says in a `request_scope` who asks, until when,
    and whether its bits must not depend on the others.
    """

    def __init__(
        self,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        prefix_budget_bytes: int = _PREFIX_BUDGET_BYTES,
        residency: Residency | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        """A given `residency` brings its own batcher."""
        self.residency = residency or Residency(device, dtype, batcher=batcher)
        self.batcher = self.residency.batcher
        # More threads than cores that decode would only take turns with each other and with the device thread.
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._states = ImageStates(prefix_budget_bytes, self._pixels, by_mode=self.batcher is not None)

    @property
    def prefix_counts(self) -> CacheCounts:
        """Hits and misses of the prefix cache."""
        return self._states.counts

    def models(self) -> list[ModelInfo]:
        """Those which are loaded, the one used last at the end."""
        return [loaded.info for loaded in self.residency.models()]

    def provenance(self, model: ModelRef, sae: str | None, figures: Figures) -> Provenance:
        """Of the answer to a request about this model (and SAE) that cost `figures`. Call it inside the scope."""
        info = self.residency.model(model).info
        sae_info = None if sae is None else self.residency.steerable(model, sae).sae_info
        return Provenance(
            model_sha256=info.weights_sha256,
            sae_sha256=None if sae_info is None else sae_info.weights_sha256,
            hook_point=None if sae_info is None else str(sae_info.hook_point),
            preprocess_sha256=info.preprocess_sha256,
            device=info.device,
            dtype=info.dtype,
            deterministic=current_scope().deterministic,
            batch_size=figures.batch_size,
            queue_ms=figures.queue_ms,
            compute_ms=figures.compute_ms,
            prefix_cached=figures.prefix_cached,
            fulcrum_version=__version__,
            torch_version=torch.__version__,
        )

    def load_model(self, ref: ModelRef) -> ModelInfo:
        """Loads (once) and describes a model. Raises UnknownModel, CorruptCheckpoint."""
        return self.residency.model(ref).info

    def load_sae(self, path: str, model: ModelRef) -> SaeInfo:
        """Loads (once) an SAE. Raises UnknownSae, CorruptCheckpoint, SaeDoesNotFit."""
        return self.residency.steerable(model, path).sae_info

    @tells_full_memory
    def encode_images(self, model: ModelRef, images: Sequence[bytes]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed). Raises UnreadableImage, ImageTooLarge."""
        loaded = self.residency.model(model)
        parts = []
        for start in range(0, len(images), BATCH_SIZE):
            pixels = self._pixels(loaded, images[start : start + BATCH_SIZE])
            parts.append(embed_images(loaded, pixels, self.batcher).cpu())
        if not parts:
            raise InvalidSettings("no images to encode")
        return torch.cat(parts).numpy()

    @tells_full_memory
    def encode_texts(self, model: ModelRef, texts: Sequence[str]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed). Raises EmptyPrompts, InvalidPrompt."""
        return embed_texts(self.residency.model(model), texts, self.batcher).cpu().numpy()

    @tells_full_memory
    def predict(self, model: ModelRef, images: Sequence[bytes], task: ClassSet) -> list[Prediction]:
        """Zero-shot predictions."""
        head = self.residency.head(model, task)
        embeddings = self.encode_images(model, images)
        return head.predictions(torch.from_numpy(embeddings).to(head.class_embeddings.device))

    @tells_full_memory
    def predict_steered(
        self,
        model: ModelRef,
        sae: str,
        images: Sequence[bytes],
        correction: Correction,
        task: ClassSet,
    ) -> list[SteeredPrediction]:
        """Zero-shot predictions of many images without and with a correction, paired. Keeps no activations.

        Raises what `steer` raises.
        """
        steerable = self.residency.steerable(model, sae)
        check_correction(steerable, correction)
        head = self.residency.head(model, task)
        plan = EditPlan.of(correction)
        answers: list[SteeredPrediction] = []
        for start in range(0, len(images), BATCH_SIZE):
            state = self._prefix_of(steerable, images[start : start + BATCH_SIZE])
            steered = steered_embeddings(
                steerable.tower,
                state,
                steerable.sae,
                [plan] * state.x.shape[0],
                readout=head,
                batch_size=BATCH_SIZE,
            )
            pairs = zip(head.predictions(steered.before), head.predictions(steered.after), strict=True)
            answers += [
                SteeredPrediction(before, after, changed)
                for (before, after), changed in zip(pairs, steered.changed.tolist(), strict=True)
            ]
        if not answers:
            raise InvalidSettings("no images to predict")
        return answers

    @tells_full_memory
    def encode_latents(self, model: ModelRef, sae: str, image: bytes) -> ImageLatents:
        """Sparse latents of every token at the SAE's hook point."""
        steerable = self.residency.steerable(model, sae)
        sparse = self._states.latents(steerable, self._states.of(steerable, image))
        return ImageLatents(
            # Copies: on a CPU the caller would write into the cache.
            sparse.offsets.cpu().numpy().copy(),
            sparse.latents.cpu().numpy().copy(),
            sparse.values.cpu().numpy().copy(),
            sparse.d_sae,
        )

    @tells_full_memory
    def attribute(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        task: ClassSet,
        target: Target | None = None,
        method: AttributionMethod = "act_x_grad",
        n_latents: int = 20,
        n_steps: int = 32,
        per_token: bool = False,
    ) -> Attribution:
        """The `n_latents` largest scores, each with its measured ablation, and how far the two agree.

        `target` None: the margin of the prediction over the runner-up (the logit, in a class set of one).
        """
        if method not in METHODS:
            raise InvalidSettings(f"attribution method {method!r} is not one of {sorted(METHODS)}")
        if n_latents < 1:
            raise InvalidSettings(f"n_latents is {n_latents}: it must be >= 1")
        steerable, head, kept = self._prepared(model, sae, image, task)
        state = kept.hook
        tower, module = steerable.tower, steerable.sae
        prediction = head.predictions(kept.unedited(steerable.tower))[0]
        target = target or default_target(prediction)
        y = target_function(head, target)
        options = {"n_steps": n_steps} if method == "integrated_gradients" else {}
        sparse = self._states.latents(steerable, kept)
        scores = METHODS[method](tower, state, module, y, sparse=sparse, **options)
        latents, values = scores.of_image()
        latents, values = latents[:n_latents], values[:n_latents]
        measured = measure_latents(tower, state, module, y, latents, values, sparse=sparse)
        tokens: Tensor | None = None
        if per_token:
            tokens = (
                ablate_tokens(tower, state, module, y, latents, sparse=sparse)
                if method == "ablation"
                else scores.per_token(latents)
            )
        shown = _attributions(scores.active, latents, values, measured.effects, tokens)
        residuals = scores.completeness_residuals
        return Attribution(
            method=method,
            target=target,
            target_value=measured.target_value,
            latents=shown,
            prediction=prediction,
            # Where the scores are the measured effects, their agreement says nothing.
            rank_agreement=None if method == "ablation" else measured.rank_agreement,
            completeness_residual=None if residuals is None else float(residuals[0]),
            interaction_share=measured.interaction_share,
            joint_effect=measured.joint_effect,
            grid=tower.grid,
            has_cls=tower.has_cls,
            hook_point=str(tower.hook_point),
        )

    def correction(
        self,
        model: ModelRef,
        sae: str,
        edits: Sequence[Edit],
        *,
        scope: Scope | None = None,
        conditions: Sequence[Condition] = (),
        task: ClassSet | None = None,
        origin: Origin | None = None,
        drop_error: bool = False,
    ) -> Correction:
        """Edits as a correction of this model and SAE, named by the hashes of their weights."""
        steerable = self.residency.steerable(model, sae)
        return Correction(
            model_sha256=steerable.loaded.info.weights_sha256,
            sae_sha256=steerable.sae_info.weights_sha256,
            hook_point=str(steerable.sae_info.hook_point),
            edits=tuple(edits),
            scope=scope or Scope(),
            conditions=tuple(conditions),
            task=task,
            origin=origin or Origin(),
            drop_error=drop_error,
        )

    @tells_full_memory
    def steer(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        correction: Correction,
        task: ClassSet,
        target: Target | None = None,
        n_controls: int = 32,
        seed: int = 0,
        firing_rates: FloatArray | None = None,
    ) -> Effect:
        """Before, after, diagnostics and controls from one call; `firing_rates` (d_sae,) sharpen the matched controls.

        Raises SaeDoesNotFit for a correction that was made for another model, SAE or hook point.
        """
        steerable, head, kept = self._prepared(model, sae, image, task)
        check_correction(steerable, correction)
        unedited = kept.unedited(steerable.tower)
        target = target or default_target(head.predictions(unedited)[0])
        return effect(
            steerable.tower,
            kept.hook,
            steerable.sae,
            EditPlan.of(correction),
            head,
            target,
            target_function(head, target),
            n_controls=n_controls,
            seed=seed,
            firing_rates=firing_rates,
            unedited=unedited,
            sparse=self._states.latents(steerable, kept),
        )

    @tells_full_memory
    def sweep(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        latents: Sequence[int],
        gains: Sequence[float],
        task: ClassSet,
        target: Target | None = None,
    ) -> DoseResponse:
        """All gains in one batched suffix pass."""
        steerable, head, kept = self._prepared(model, sae, image, task)
        unedited = kept.unedited(steerable.tower)
        target = target or default_target(head.predictions(unedited)[0])
        y = target_function(head, target)
        return dose_response(
            steerable.tower,
            kept.hook,
            steerable.sae,
            latents,
            gains,
            head,
            target,
            y,
            unedited=unedited,
            sparse=self._states.latents(steerable, kept),
        )

    def suggest(
        self,
        model: ModelRef,
        sae: str,
        image: bytes,
        task: ClassSet,
        wanted: str,
        max_latents: int = 5,
    ) -> Iterator[Suggestion]:
        """Alternative minimal edits which make `wanted` the prediction, as they are found. Raises InvalidTarget."""
        if len(task.names) < 2:
            raise EmptyPrompts("a suggestion needs at least two classes to choose between")
        steerable, head, kept = self._prepared(model, sae, image, task)
        if head.predictions(kept.unedited(steerable.tower))[0].top == wanted:
            raise InvalidTarget(f"the model already predicts {wanted!r}: there is nothing to correct")
        found = minimal_sets(
            steerable.tower,
            kept.hook,
            steerable.sae,
            head,
            wanted,
            max_latents=max_latents,
            sparse=tells_full_memory(self._states.latents)(steerable, kept),
        )
        step = tells_full_memory(lambda: next(found, None))
        while (suggestion := step()) is not None:
            yield suggestion

    def _prepared(
        self, model: ModelRef, sae: str, image: bytes, task: ClassSet
    ) -> tuple[Steerable, ZeroShotHead, ImageState]:
        steerable = self.residency.steerable(model, sae)
        return steerable, self.residency.head(model, task), self._states.of(steerable, image)

    def _prefix_of(self, steerable: Steerable, images: Sequence[bytes]) -> HookState:
        """Activations of a batch. Without a batcher it is filled up to the one size of passes over data sets."""
        pixels = self._pixels(steerable.loaded, images)
        n, missing = len(images), BATCH_SIZE - len(images)
        if self.batcher is None and missing:
            pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        with torch.no_grad():
            return steerable.tower.prefix(pixels.to(steerable.loaded.dtype)).rows(slice(0, n))

    def _pixels(self, loaded: LoadedModel, images: Sequence[bytes]) -> Tensor:
        """Decoded and preprocessed in the calling thread. Raises UnreadableImage, ImageTooLarge."""
        rows = []
        for data in images:
            current_scope().check()
            # One by one: a few KB of PNG may be 150 MB of pixels, and a request may bring many such.
            with self._decoding:
                rows.append(loaded.preprocess([decode_image(data)], loaded.device))
        return torch.cat(rows)


def default_target(prediction: Prediction) -> Target:
    """What moves all prompts together is no reason for one of them: the margin, where there are two classes."""
    if prediction.runner_up is None:
        return LogitTarget(prediction.top)
    return MarginTarget(prediction.top, prediction.runner_up)


def check_correction(steerable: Steerable, correction: Correction) -> None:
    """Raises SaeDoesNotFit unless the correction was made for this model, SAE and hook point."""
    info = steerable.sae_info
    for what, wanted, got in (
        ("model weights", correction.model_sha256, steerable.loaded.info.weights_sha256),
        ("SAE weights", correction.sae_sha256, info.weights_sha256),
        ("hook point", correction.hook_point, str(info.hook_point)),
    ):
        if wanted != got:
            raise SaeDoesNotFit(f"the correction was made for {what} {wanted}, and these are {got}")


def _attributions(
    active: ActiveLatents, latents: Tensor, values: Tensor, effects: Tensor, per_token: Tensor | None
) -> tuple[LatentAttribution, ...]:
    shown = []
    for i, latent in enumerate(latents.tolist()):
        mine = active.values[active.latents == latent]
        shown.append(
            LatentAttribution(
                latent=latent,
                score=float(values[i]),
                measured_effect=float(effects[i]),
                max_activation=float(mine.max()),
                n_tokens_active=len(mine),
                per_token=None if per_token is None else per_token[i].double().cpu().numpy(),
            )
        )
    return tuple(shown)
