"""A steering session: the slider moves, the newest answer comes back."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import FulcrumError, ServiceUnavailable
from fulcrum.rpc import requests
from fulcrum.rpc.answers import MoveAnswer, understood
from fulcrum.rpc.async_transport import AsyncTransport
from fulcrum.rpc.convert import from_answer, to_message
from fulcrum.rpc.errors import from_rpc_error, from_status
from fulcrum.rpc.v1 import inference_pb2


class SteeringSession:
    """`async with engine.steer_session(...) as session`: `move` sends, `async for` receives, in two tasks or in turn.

    A move that a later one overtakes gets no answer. A move that is refused gets its error and the session goes on;
    what ends the session is raised. `done_moving` ends the iteration after the last answer.
    """

    def __init__(self, transport: AsyncTransport, opening: requests.SessionOpening, user: str) -> None:
        self._transport = transport
        self._opening = opening
        self._user = user
        self._call: Any = None
        self._sequence = 0

    async def __aenter__(self) -> Self:
        opening = inference_pb2.SteerSessionRequest(open=to_message(self._opening))
        stub = await self._transport.connected(self._opening)
        self._call = stub.SteerSession(metadata=self._transport.metadata(self._user))
        await self._write(opening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    async def move(self, correction: Correction) -> int:
        """Sends the correction as it is now; the number that its answer, if any, will carry."""
        self._sequence += 1
        move = to_message(requests.SessionMove(self._sequence, correction))
        await self._write(inference_pb2.SteerSessionRequest(move=move))
        return self._sequence

    async def done_moving(self) -> None:
        """No move will follow: the answers end after the one of the last move."""
        await self._call.done_writing()

    async def __aiter__(self) -> AsyncIterator[MoveAnswer]:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                yield understood(_answer, message)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def _write(self, message: inference_pb2.SteerSessionRequest) -> None:
        try:
            await self._call.write(message)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.InvalidStateError as error:  # gRPC's word for a call that is over, without the reason
            raise await self._ending() from error

    async def _ending(self) -> FulcrumError:
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return ServiceUnavailable("the inference service ended the session")
        trailing = await self._call.trailing_metadata()
        return from_rpc_error(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=await self._call.details())
        )


def _answer(message: inference_pb2.SteerSessionResponse) -> MoveAnswer:
    if message.WhichOneof("outcome") == "error":
        return MoveAnswer(message.sequence, from_status(message.error))
    return MoveAnswer(message.sequence, from_answer(message.answer))
