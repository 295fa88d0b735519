"""The calls of `fulcrum.rpc.v1.Inference`: a message in, a thread that asks the engine, a message out."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from fulcrum.domain.errors import FulcrumError
from fulcrum.inference.answering import Answering
from fulcrum.inference.calls import Workers, current_call
from fulcrum.inference.steer_session import SteerSession
from fulcrum.rpc import requests
from fulcrum.rpc.convert import from_message, to_answer, to_message
from fulcrum.rpc.v1 import inference_pb2 as pb
from fulcrum.rpc.v1.inference_pb2_grpc import InferenceServicer

R = TypeVar("R", bound=Message)

_BARE = (requests.LoadModel, requests.LoadSae, requests.ListModels)  # answered without provenance


class Servicer(InferenceServicer):
    """Thin: conversion and threads. Errors leave through the border."""

    def __init__(
        self,
        answering: Answering,
        workers: Workers,
        shown: Callable[[FulcrumError], FulcrumError],
        max_call_s: float,
    ) -> None:
        self._answering = answering
        self._workers = workers
        self._shown = shown
        self._max_call_s = max_call_s

    async def EncodeImages(self, request: pb.EncodeImagesRequest, context: Any) -> pb.EncodeImagesResponse:
        """Embeddings of images."""
        return await self._unary(requests.EncodeImages, request, pb.EncodeImagesResponse)

    async def EncodeTexts(self, request: pb.EncodeTextsRequest, context: Any) -> pb.EncodeTextsResponse:
        """Embeddings of texts."""
        return await self._unary(requests.EncodeTexts, request, pb.EncodeTextsResponse)

    async def EncodeLatents(self, request: pb.EncodeLatentsRequest, context: Any) -> pb.EncodeLatentsResponse:
        """Latents of one image."""
        return await self._unary(requests.EncodeLatents, request, pb.EncodeLatentsResponse)

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Predictions of images."""
        return await self._unary(requests.Predict, request, pb.PredictResponse)

    async def PredictSteered(
        self, request: pb.PredictSteeredRequest, context: Any
    ) -> pb.PredictSteeredResponse:
        """Predictions without and with a correction."""
        return await self._unary(requests.PredictSteered, request, pb.PredictSteeredResponse)

    async def Attribute(self, request: pb.AttributeRequest, context: Any) -> pb.AttributeResponse:
        """Attribution of one output."""
        return await self._unary(requests.Attribute, request, pb.AttributeResponse)

    async def Steer(self, request: pb.SteerRequest, context: Any) -> pb.SteerResponse:
        """Effect of a correction."""
        return await self._unary(requests.Steer, request, pb.SteerResponse)

    async def LoadModel(self, request: pb.LoadModelRequest, context: Any) -> pb.LoadModelResponse:
        """Loads a model."""
        return await self._unary(requests.LoadModel, request, pb.LoadModelResponse)

    async def LoadSae(self, request: pb.LoadSaeRequest, context: Any) -> pb.LoadSaeResponse:
        """Loads an SAE."""
        return await self._unary(requests.LoadSae, request, pb.LoadSaeResponse)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Models in memory."""
        return await self._unary(requests.ListModels, request, pb.ListModelsResponse)

    async def WarmModel(self, request: pb.WarmModelRequest, context: Any) -> pb.WarmModelResponse:
        """Loads, and runs one forward."""
        return await self._unary(requests.WarmModel, request, pb.WarmModelResponse)

    async def Sweep(self, request: pb.SweepRequest, context: Any) -> AsyncIterator[pb.SweepResponse]:
        """The points, then the whole curve."""
        done = await self._unary(requests.Sweep, request, pb.SweepDone)
        points = pb.SweepResponse()
        for field in ("gains", "logits", "target_values"):
            getattr(points.points, field).CopyFrom(getattr(done.value, field))
        yield points
        yield pb.SweepResponse(done=done)

    async def Suggest(self, request: pb.SuggestRequest, context: Any) -> AsyncIterator[pb.SuggestResponse]:
        """Suggestions as they are found, then all of them."""
        call = current_call.get()

        def work() -> Iterator[pb.SuggestResponse]:
            asked = from_message(requests.Suggest, request)
            with call.scope(asked.deterministic) as figures:
                found = []
                for suggestion in self._answering.suggestions(asked):
                    found.append(suggestion)
                    yield pb.SuggestResponse(suggestion=to_message(suggestion))
                provenance = self._answering.provenance(asked, figures)
            yield pb.SuggestResponse(done=to_answer(pb.SuggestDone, tuple(found), provenance))

        async for event in self._workers.stream(call, work):
            yield event

    async def SteerSession(
        self, request_iterator: AsyncIterator[pb.SteerSessionRequest], context: Any
    ) -> AsyncIterator[pb.SteerSessionResponse]:
        """The newest move's effect; overtaken moves get no answer."""
        session = SteerSession(
            self._answering, self._workers, current_call.get(), self._shown, self._max_call_s
        )
        async for response in session.run(request_iterator):
            yield response

    async def _unary(self, kind: type[Any], message: Message, response: type[R]) -> R:
        call = current_call.get()

        def work() -> R:
            asked = from_message(kind, message)
            with call.scope(getattr(asked, "deterministic", False)) as figures:
                value = self._answering.value(asked)
                provenance = None if kind in _BARE else self._answering.provenance(asked, figures)
            return to_answer(response, value, provenance)

        return await self._workers.run(call, work)
