"""AsyncRemoteEngine: the inference service for asyncio programs, each answer with its provenance."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from fulcrum.domain.corrections import Correction
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Answered
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
from fulcrum.rpc.answers import DosePoints, understood, unfinished
from fulcrum.rpc.async_transport import AsyncTransport
from fulcrum.rpc.channels import TlsFiles
from fulcrum.rpc.convert import from_answer, from_message, value_of
from fulcrum.rpc.images import Image
from fulcrum.rpc.session import SteeringSession
from fulcrum.rpc.transport import LOAD_TIMEOUT_S, Carried


class AsyncRemoteEngine:
    """Encodes, attributes and steers on an inference service; `async with` or `aclose()` ends it.

    `address` is `unix:/path` or `host:port`, several separated by commas; the same image goes to the same replica.
    `timeout_s` bounds each call but loading, which has `load_timeout_s`; `carried` gives further metadata (request id,
    traceparent) for each call. Every method raises domain errors only; a cancelled task cancels its call. Images are
    bytes or hashes of the artifact store. Used in one event loop.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        timeout_s: float | None = 60.0,
        load_timeout_s: float | None = LOAD_TIMEOUT_S,
        carried: Carried | None = None,
    ) -> None:
        self._transport = AsyncTransport(address, token, tls, carried)
        self._timeout_s = timeout_s
        self._load_timeout_s = load_timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends running calls and closes the connections."""
        await self._transport.aclose()

    async def health(self, timeout_s: float = 2.0) -> bool:
        """Whether any replica is reachable and says that it serves."""
        return any((await self.replicas(timeout_s)).values())

    async def replicas(self, timeout_s: float = 2.0) -> dict[str, bool]:
        """For each address whether the replica there is reachable and says that it serves."""
        return await self._transport.serving(timeout_s)

    async def load_model(self, ref: ModelRef, *, user: str = "") -> ModelInfo:
        """Loads (once) and describes a model. Raises UnknownModel, CorruptCheckpoint."""
        info: ModelInfo = await self._load("LoadModel", requests.LoadModel(ref), user)
        return info

    async def load_sae(self, path: str, model: ModelRef, *, user: str = "") -> SaeInfo:
        """Loads (once) an SAE. Raises UnknownSae, CorruptCheckpoint, SaeDoesNotFit."""
        info: SaeInfo = await self._load("LoadSae", requests.LoadSae(path, model), user)
        return info

    async def list_models(self, *, user: str = "") -> list[ModelInfo]:
        """The models in memory of the first replica that answers."""
        message = await self._transport.ask("ListModels", requests.ListModels(), user, self._timeout_s)
        return list(understood(value_of, message))

    async def warm_model(self, model: ModelRef, sae: str | None = None, *, user: str = "") -> ModelInfo:
        """Loads a model (and SAE) on every replica and runs one forward there. Raises as `load_model`, `load_sae`."""
        request = requests.WarmModel(model, sae)
        infos: list[ModelInfo] = await asyncio.gather(
            *(self._load("WarmModel", request, user, only=a) for a in self._transport.addresses)
        )
        return infos[0]

    async def encode_images(
        self, model: ModelRef, images: Sequence[Image], *, user: str, deterministic: bool = False
    ) -> Answered[FloatArray]:
        """Unit-norm embeddings (n, d_embed). Raises UnreadableImage, ImageTooLarge."""
        request = requests.EncodeImages(model, tuple(images), deterministic)
        return await self._answer("EncodeImages", request, user)

    async def encode_texts(
        self, model: ModelRef, texts: Sequence[str], *, user: str, deterministic: bool = False
    ) -> Answered[FloatArray]:
        """Unit-norm embeddings (n, d_embed). Raises EmptyPrompts, InvalidPrompt."""
        request = requests.EncodeTexts(model, tuple(texts), deterministic)
        return await self._answer("EncodeTexts", request, user)

    async def encode_latents(
        self, model: ModelRef, sae: str, image: Image, *, user: str, deterministic: bool = False
    ) -> Answered[ImageLatents]:
        """Sparse latents of every token at the SAE's hook point."""
        request = requests.EncodeLatents(model, sae, image, deterministic)
        return await self._answer("EncodeLatents", request, user)

    async def predict(
        self,
        model: ModelRef,
        images: Sequence[Image],
        task: ClassSet,
        *,
        user: str,
        deterministic: bool = False,
    ) -> Answered[tuple[Prediction, ...]]:
        """Zero-shot predictions."""
        request = requests.Predict(model, tuple(images), task, deterministic)
        return await self._answer("Predict", request, user)

    async def predict_steered(
        self,
        model: ModelRef,
        sae: str,
        images: Sequence[Image],
        correction: Correction,
        task: ClassSet,
        *,
        user: str,
        deterministic: bool = False,
    ) -> Answered[tuple[SteeredPrediction, ...]]:
        """Zero-shot predictions of many images without and with a correction, paired."""
        request = requests.PredictSteered(model, sae, tuple(images), correction, task, deterministic)
        return await self._answer("PredictSteered", request, user)

    async def attribute(
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
        *,
        user: str,
        deterministic: bool = False,
    ) -> Answered[Attribution]:
        """`target` None: the margin of the prediction over the runner-up."""
        request = requests.Attribute(
            model, sae, image, task, target, method, n_latents, n_steps, per_token, deterministic
        )
        return await self._answer("Attribute", request, user)

    async def steer(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        correction: Correction,
        task: ClassSet,
        target: Target | None = None,
        n_controls: int = 32,
        seed: int = 0,
        *,
        user: str,
        deterministic: bool = False,
    ) -> Answered[Effect]:
        """Before, after, diagnostics and controls from one call."""
        request = requests.Steer(model, sae, image, correction, task, target, n_controls, seed, deterministic)
        return await self._answer("Steer", request, user)

    async def sweep(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        latents: Sequence[int],
        gains: Sequence[float],
        task: ClassSet,
        target: Target | None = None,
        *,
        user: str,
        deterministic: bool = False,
    ) -> AsyncGenerator[DosePoints | Answered[DoseResponse], None]:
        """Points as they are known, the whole curve last. Close it (`aclosing`) when leaving early."""
        request = requests.Sweep(model, sae, image, tuple(latents), tuple(gains), task, target, deterministic)
        async with aclosing(self._stream("Sweep", request, user)) as events:
            async for event in events:
                if event.WhichOneof("event") == "done":
                    yield understood(from_answer, event.done)
                    return
                yield understood(from_message, DosePoints, event.points)
        raise unfinished("Sweep")

    async def suggest(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        task: ClassSet,
        wanted: str,
        max_latents: int = 5,
        *,
        user: str,
        deterministic: bool = False,
    ) -> AsyncGenerator[Suggestion | Answered[tuple[Suggestion, ...]], None]:
        """Edits which make `wanted` the prediction, as they are found; all of them last. Close it as `sweep`."""
        request = requests.Suggest(model, sae, image, task, wanted, max_latents, deterministic)
        async with aclosing(self._stream("Suggest", request, user)) as events:
            async for event in events:
                if event.WhichOneof("event") == "done":
                    yield understood(from_answer, event.done)
                    return
                yield understood(from_message, Suggestion, event.suggestion)
        raise unfinished("Suggest")

    def steer_session(
        self,
        model: ModelRef,
        sae: str,
        image: Image,
        task: ClassSet,
        target: Target | None = None,
        n_controls: int = 0,
        seed: int = 0,
        *,
        user: str,
        deterministic: bool = False,
    ) -> SteeringSession:
        """Slider moves in, newest answer out: `async with ... as session`."""
        opening = requests.SessionOpening(model, sae, image, task, target, n_controls, seed, deterministic)
        return SteeringSession(self._transport, opening, user)

    async def _answer(self, method: str, request: Any, user: str) -> Answered[Any]:
        message = await self._transport.ask(method, request, user, self._timeout_s)
        return understood(from_answer, message)

    async def _load(self, method: str, request: Any, user: str, only: str | None = None) -> Any:
        message = await self._transport.ask(method, request, user, self._load_timeout_s, only)
        return understood(value_of, message)

    def _stream(self, method: str, request: Any, user: str) -> AsyncGenerator[Any, None]:
        return self._transport.stream(method, request, user, self._timeout_s)
