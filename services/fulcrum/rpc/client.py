"""RemoteEngine: the `InferenceEngine` behind gRPC, for programs that wait for their answers."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from fulcrum.domain.corrections import Correction
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.results import (
    Attribution,
    AttributionMethod,
    DoseResponse,
    Effect,
    FloatArray,
    Prediction,
    SteeredPrediction,
    Suggestion,
)
from fulcrum.domain.tasks import ClassSet, Target
from fulcrum.rpc import requests
from fulcrum.rpc.answers import understood, unfinished
from fulcrum.rpc.channels import TlsFiles
from fulcrum.rpc.convert import from_answer, from_message, value_of
from fulcrum.rpc.images import Image
from fulcrum.rpc.pieces import pieces_of
from fulcrum.rpc.transport import LOAD_TIMEOUT_S, Carried, Transport


class RemoteEngine:
    """Encodes, attributes and steers on an inference service. Safe to call from several threads, not over a fork.

    `address` is `unix:/path` or `host:port`, several separated by commas; the same image goes to the same replica.
    `user` shares the service fairly with others; `deterministic` asks for the same bits alone or beside others.
    `timeout_s` bounds each call but loading, which has `load_timeout_s`; `carried` gives further metadata (request id,
    traceparent) for each call. Every method raises domain errors only.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        user: str = "",
        deterministic: bool = False,
        timeout_s: float | None = 60.0,
        load_timeout_s: float | None = LOAD_TIMEOUT_S,
        carried: Carried | None = None,
    ) -> None:
        self._transport = Transport(address, token, tls, user, carried)
        self._deterministic = deterministic
        self._timeout_s = timeout_s
        self._load_timeout_s = load_timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends running calls and closes the connections."""
        self._transport.close()

    def health(self, timeout_s: float = 2.0) -> bool:
        """Whether any replica is reachable and says that it serves."""
        return any(self._transport.serving(timeout_s).values())

    def load_model(self, ref: ModelRef) -> ModelInfo:
        """Loads (once) and describes a model. Raises UnknownModel, CorruptCheckpoint."""
        return cast(ModelInfo, self._load("LoadModel", requests.LoadModel(ref)))

    def load_sae(self, path: str, model: ModelRef) -> SaeInfo:
        """Loads (once) an SAE. Raises UnknownSae, CorruptCheckpoint, SaeDoesNotFit."""
        return cast(SaeInfo, self._load("LoadSae", requests.LoadSae(path, model)))

    def list_models(self) -> list[ModelInfo]:
        """The models in memory of the first replica that answers."""
        message = self._transport.ask("ListModels", requests.ListModels(), self._timeout_s)
        return list(understood(value_of, message))

    def warm_model(self, model: ModelRef, sae: str | None = None) -> ModelInfo:
        """Loads a model (and SAE) on every replica and runs one forward there. Raises as `load_model`, `load_sae`."""
        request = requests.WarmModel(model, sae)
        infos = [self._load("WarmModel", request, only=a) for a in self._transport.addresses]
        return cast(ModelInfo, infos[0])

    def encode_images(self, model: ModelRef, images: Sequence[Image]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed). Raises UnreadableImage, ImageTooLarge."""
        parts = [
            self._value("EncodeImages", requests.EncodeImages(model, piece, self._deterministic))
            for piece in pieces_of(images)
        ]
        return cast(FloatArray, np.concatenate(parts))

    def encode_texts(self, model: ModelRef, texts: Sequence[str]) -> FloatArray:
        """Unit-norm embeddings (n, d_embed). Raises EmptyPrompts, InvalidPrompt."""
        request = requests.EncodeTexts(model, tuple(texts), self._deterministic)
        return cast(FloatArray, self._value("EncodeTexts", request))

    def encode_latents(self, model: ModelRef, sae: str, image: Image) -> ImageLatents:
        """Sparse latents of every token at the SAE's hook point."""
        request = requests.EncodeLatents(model, sae, image, self._deterministic)
        return cast(ImageLatents, self._value("EncodeLatents", request))

    def predict(self, model: ModelRef, images: Sequence[Image], task: ClassSet) -> list[Prediction]:
        """Zero-shot predictions."""
        return list(
            chain.from_iterable(
                self._value("Predict", requests.Predict(model, piece, task, self._deterministic))
                for piece in pieces_of(images)
            )
        )

    def predict_steered(
        self,
        model: ModelRef,
        sae: str,
        images: Sequence[Image],
        correction: Correction,
        task: ClassSet,
    ) -> list[SteeredPrediction]:
        """Zero-shot predictions of many images without and with a correction, paired."""
        return list(
            chain.from_iterable(
                self._value(
                    "PredictSteered",
                    requests.PredictSteered(model, sae, piece, correction, task, self._deterministic),
                )
                for piece in pieces_of(images)
            )
        )

    def attribute(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        task: ClassSet,
        target: Target | None = None,
        method: AttributionMethod = "act_x_grad",
        n_latents: int = 20,
        n_steps: int = 32,
        per_token: bool = False,
    ) -> Attribution:
        """`target` None: the margin of the prediction over the runner-up."""
        request = requests.Attribute(
            model, sae, image, task, target, method, n_latents, n_steps, per_token, self._deterministic
        )
        return cast(Attribution, self._value("Attribute", request))

    def steer(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        correction: Correction,
        task: ClassSet,
        target: Target | None = None,
        n_controls: int = 32,
        seed: int = 0,
    ) -> Effect:
        """Before, after, diagnostics and controls from one call."""
        request = requests.Steer(
            model, sae, image, correction, task, target, n_controls, seed, self._deterministic
        )
        return cast(Effect, self._value("Steer", request))

    def sweep(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        latents: Sequence[int],
        gains: Sequence[float],
        task: ClassSet,
        target: Target | None = None,
    ) -> DoseResponse:
        """All gains in one batched suffix pass."""
        request = requests.Sweep(
            model, sae, image, tuple(latents), tuple(gains), task, target, self._deterministic
        )
        with closing(self._stream("Sweep", request)) as events:
            for event in events:
                if event.WhichOneof("event") == "done":
                    return cast(DoseResponse, understood(from_answer, event.done).value)
        raise unfinished("Sweep")

    def suggest(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        task: ClassSet,
        wanted: str,
        max_latents: int = 5,
    ) -> Iterator[Suggestion]:
        """Alternative minimal edits which make `wanted` the prediction, as they are found. Raises InvalidTarget."""
        request = requests.Suggest(model, sae, image, task, wanted, max_latents, self._deterministic)
        with closing(self._stream("Suggest", request)) as events:
            for event in events:
                if event.WhichOneof("event") == "done":
                    return
                yield understood(from_message, Suggestion, event.suggestion)
        raise unfinished("Suggest")

    def _value(self, method: str, request: Any) -> Any:
        message = self._transport.ask(method, request, self._timeout_s)
        return understood(from_answer, message).value

    def _load(self, method: str, request: Any, only: str | None = None) -> Any:
        message = self._transport.ask(method, request, self._load_timeout_s, only)
        return understood(value_of, message)

    def _stream(self, method: str, request: Any) -> Generator[Any, None, None]:
        return self._transport.stream(method, request, self._timeout_s)
