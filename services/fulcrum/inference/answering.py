"""Requests to values: names and images resolved, the engine asked, and how the answer came about."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from fulcrum import telemetry
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.results import Suggestion
from fulcrum.engine.local import LocalEngine
from fulcrum.engine.references import References
from fulcrum.engine.scopes import Figures
from fulcrum.inference.images import Images
from fulcrum.inference.limits import check
from fulcrum.rpc import requests
from fulcrum.rpc.images import Image

log = telemetry.logger(__name__)


class Answering:
    """Everything that runs in a call's own thread; raises domain errors only."""

    def __init__(self, engine: LocalEngine, references: References, images: Images) -> None:
        self._engine = engine
        self._references = references
        self._images = images
        self._canary_image = _canary_image()

    def value(self, request: Any) -> Any:
        """What the response's `value` holds."""
        check(request)
        engine, images = self._engine, self._images
        match request:
            case requests.LoadModel(ref):
                return self._described(engine.load_model(self._references.model(ref)), ref)
            case requests.LoadSae(sae, ref):
                info = engine.load_sae(self._references.sae(sae), self._references.model(ref))
                return self._described_sae(info, sae)
            case requests.ListModels():
                return tuple(self._described(info, self._asked(info.ref)) for info in engine.models())
            case requests.WarmModel(ref, sae):
                return self._described(self._warm(ref, sae), ref)
        model = self._references.model(request.model)
        match request:
            case requests.EncodeImages():
                return engine.encode_images(model, self._read(request.images))
            case requests.EncodeTexts():
                return engine.encode_texts(model, request.texts)
            case requests.Predict():
                return engine.predict(model, self._read(request.images), request.task)
        sae = self._references.sae(request.sae)
        match request:
            case requests.EncodeLatents():
                return engine.encode_latents(model, sae, images.read(request.image))
            case requests.PredictSteered():
                pictures = self._read(request.images)
                return engine.predict_steered(model, sae, pictures, request.correction, request.task)
            case requests.Attribute():
                return engine.attribute(
                    model,
                    sae,
                    images.read(request.image),
                    request.task,
                    request.target,
                    request.method,
                    request.n_latents,
                    request.n_steps,
                    request.per_token,
                )
            case requests.Steer():
                return engine.steer(
                    model,
                    sae,
                    images.read(request.image),
                    request.correction,
                    request.task,
                    request.target,
                    request.n_controls,
                    request.seed,
                )
            case requests.Sweep():
                return engine.sweep(
                    model,
                    sae,
                    images.read(request.image),
                    request.latents,
                    request.gains,
                    request.task,
                    request.target,
                )
        raise TypeError(f"no answer is known to a {type(request).__name__}")

    def suggestions(self, request: requests.Suggest) -> Iterator[Suggestion]:
        """One by one, as they are found."""
        check(request)
        return self._engine.suggest(
            self._references.model(request.model),
            self._references.sae(request.sae),
            self._images.read(request.image),
            request.task,
            request.wanted,
            request.max_latents,
        )

    def provenance(self, request: Any, figures: Figures) -> Provenance:
        """How the answer to `request` came about; called after it was computed, inside its scope."""
        sae = getattr(request, "sae", None)
        return self._engine.provenance(
            self._references.model(request.model),
            None if sae is None else self._references.sae(sae),
            figures,
        )

    def canary(self, model: ModelRef | None) -> None:
        """One image through `model`, or else through the one that was used last; a small product where none is loaded.

        Raises what the engine raises, and ComputationFailed for an embedding that is none.
        """
        if self._engine.batcher is not None:
            # A small model's image may run in this thread: the device's is asked whether it still turns.
            self._engine.batcher.run_alone(lambda: None)
        if model is None:
            loaded = [info.ref for info in reversed(self._engine.models())]
            if not loaded:
                self._product()
                return
            self._any_passes(loaded)
        else:
            self._passes(model)

    def _any_passes(self, models: list[ModelRef]) -> None:
        """One model whose numbers are none is the fault of that model, where another one passes on this device."""
        for model in models[:-1]:
            try:
                return self._passes(model)
            except ComputationFailed as error:
                log.warning("canary failed, the next model is tried", error=str(error))
        return self._passes(models[-1])

    def _passes(self, model: ModelRef) -> None:
        embeddings = self._engine.encode_images(model, [self._canary_image])
        norms = np.linalg.norm(embeddings, axis=1)
        if not np.isfinite(norms).all() or not np.allclose(norms, 1, atol=0.05):
            raise ComputationFailed(f"the canary's embedding has norm {norms.tolist()}, expected 1")

    def _product(self) -> None:
        device = self._engine.residency.device

        def work() -> float:
            ones = torch.ones(8, 8, device=device)
            return float((ones @ ones).sum())

        batcher = self._engine.batcher
        total = work() if batcher is None else batcher.run_alone(work)
        if total != 512:
            raise ComputationFailed(f"a product of ones on {device} sums to {total}, expected 512")

    def _warm(self, ref: ModelRef, sae: str | None) -> ModelInfo:
        model = self._references.model(ref)
        info = self._engine.load_model(model)
        self.canary(model)
        if sae is not None:
            self._engine.encode_latents(model, self._references.sae(sae), self._canary_image)
        return info

    def _read(self, images: tuple[Image, ...]) -> list[bytes]:
        return [self._images.read(image) for image in images]

    def _described(self, info: ModelInfo, ref: ModelRef) -> ModelInfo:
        return dataclasses.replace(info, ref=ref)

    def _described_sae(self, info: SaeInfo, sae: str) -> SaeInfo:
        return dataclasses.replace(info, name=sae, model_name=self._references.public(info.model_name))

    def _asked(self, ref: ModelRef) -> ModelRef:
        pretrained = None if ref.pretrained is None else self._references.public(ref.pretrained)
        return dataclasses.replace(
            ref, model_name=self._references.public(ref.model_name), pretrained=pretrained
        )


def _canary_image() -> bytes:
    pixels = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    file = io.BytesIO()
    Picture.fromarray(pixels).convert("RGB").save(file, "PNG")
    return file.getvalue()
