"""A slider's session: the newest move is answered, those that it overtook are not."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fulcrum import telemetry
from fulcrum.domain.errors import FulcrumError, InternalError, InvalidRequest
from fulcrum.inference.answering import Answering
from fulcrum.inference.calls import Call, Workers, stopping_error
from fulcrum.rpc import requests
from fulcrum.rpc.convert import from_message, to_answer
from fulcrum.rpc.errors import to_status
from fulcrum.rpc.v1 import inference_pb2 as pb

log = telemetry.logger(__name__)


class SteerSession:
    """One stream. A move in work is never stopped by the next one: under a fast hand nothing would be answered."""

    def __init__(
        self,
        answering: Answering,
        workers: Workers,
        call: Call,
        shown: Callable[[FulcrumError], FulcrumError],
        max_move_s: float,
    ) -> None:
        """`shown` takes what callers need not know out of an error; a move may take `max_move_s`."""
        self._answering = answering
        self._workers = workers
        self._call = call
        self._shown = shown
        self._max_move_s = max_move_s
        self._opening: requests.SessionOpening | None = None
        self._newest: requests.SessionMove | None = None
        self._arrived = asyncio.Event()

    async def run(
        self, incoming: AsyncIterator[pb.SteerSessionRequest]
    ) -> AsyncIterator[pb.SteerSessionResponse]:
        """Answers until the caller ends the stream, or sends nothing for as long as a move may take.

        Raises InvalidRequest for messages out of order. An error of one move is its answer, and the session goes on.
        """
        reading = asyncio.create_task(self._read(incoming))
        stopping = asyncio.create_task(self._workers.stopping.wait())
        stopping.add_done_callback(lambda _: self._arrived.set())
        try:
            while True:
                try:
                    # Not wait_for: in Python 3.11 it forgets a cancellation that comes with the event.
                    async with asyncio.timeout(self._max_move_s):
                        await self._arrived.wait()
                except TimeoutError:
                    return
                self._arrived.clear()
                move, self._newest = self._newest, None
                if move is not None and self._opening is not None:
                    yield await self._answer(self._opening, move)
                    # Under a fast hand there is always a next move.
                    if stopping.done():
                        raise stopping_error()
                elif reading.done():
                    await reading
                    return
                elif stopping.done():
                    raise stopping_error()
                if reading.done() or stopping.done():
                    self._arrived.set()
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _read(self, incoming: AsyncIterator[pb.SteerSessionRequest]) -> None:
        last = -(1 << 63)
        try:
            async for message in incoming:
                if self._opening is None:
                    if message.WhichOneof("message") != "open":
                        raise InvalidRequest("the first message of a session must be `open`")
                    self._opening = from_message(requests.SessionOpening, message.open)
                    self._arrived.set()
                    continue
                if message.WhichOneof("message") != "move":
                    raise InvalidRequest("after the first message of a session only `move` is allowed")
                move = from_message(requests.SessionMove, message.move)
                if move.sequence <= last:
                    raise InvalidRequest(f"move {move.sequence} came after move {last}: sequences must grow")
                last, self._newest = move.sequence, move
                self._arrived.set()
        finally:
            # The task is done a moment after this line.
            asyncio.get_running_loop().call_soon(self._arrived.set)

    async def _answer(self, opening: requests.SessionOpening, move: requests.SessionMove) -> Any:
        question = requests.Steer(
            opening.model,
            opening.sae,
            opening.image,
            move.correction,
            opening.task,
            opening.target,
            opening.n_controls,
            opening.seed,
            opening.deterministic,
        )

        def work() -> pb.SteerSessionAnswer:
            with self._call.scope(opening.deterministic) as figures:
                value = self._answering.value(question)
                provenance = self._answering.provenance(question, figures)
            return to_answer(pb.SteerSessionAnswer, value, provenance)

        self._call.deadline = time.monotonic() + self._max_move_s
        try:
            answer = await self._workers.run(self._call, work)
        except FulcrumError as error:
            return pb.SteerSessionResponse(sequence=move.sequence, error=to_status(self._shown(error)))
        except Exception:
            log.exception("move failed", user=self._call.user)
            fault = InternalError(
                f"request {telemetry.request_id.get()} failed by a fault of the service; its log says more"
            )
            return pb.SteerSessionResponse(sequence=move.sequence, error=to_status(fault))
        return pb.SteerSessionResponse(sequence=move.sequence, answer=answer)
