"""What every call passes on its way in and out: request id, token, draining, room, errors, figures, log."""

import asyncio
import copy
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from fulcrum import telemetry
from fulcrum.domain.errors import (
    Cancelled,
    DeadlineExceeded,
    FulcrumError,
    InternalError,
    InvalidRequest,
    PayloadTooLarge,
    Unauthenticated,
)
from fulcrum.domain.identifiers import new_id
from fulcrum.inference.calls import Call, Workers, current_call, stopping_error
from fulcrum.inference.metrics import Metrics
from fulcrum.rpc.errors import to_abort
from fulcrum.rpc.metadata import TRACEPARENT, CallMetadata

_MAX_NAME = 200  # of a user or a request id; longer ones are nobody's

log = telemetry.logger(__name__)


class Border(grpc.aio.ServerInterceptor):
    """Around the calls of our own service; health and reflection stay open, as probes carry no token."""

    def __init__(
        self,
        service: str,
        workers: Workers,
        metrics: Metrics,
        *,
        token: str | None,
        max_call_s: float,
        max_message_bytes: int,
        public: Callable[[str], str],
    ) -> None:
        """`public` takes what callers need not know out of a message."""
        self._prefix = f"/{service}/"
        self._workers = workers
        self._metrics = metrics
        self._token = token
        self._max_call_s = max_call_s
        self._max_message_bytes = max_message_bytes
        self._public = public

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler inside the border; unknown methods stay UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        method = handler_call_details.method.removeprefix(self._prefix)
        refusal = self._refusal(handler_call_details)
        if refusal is not None:
            # Of the streaming kind whatever the call is: the others read the whole request before they answer.
            return grpc.stream_stream_rpc_method_handler(self._refuse(method, refusal))
        readers = {
            "request_deserializer": _lenient(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **readers)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **readers)
        return grpc.stream_stream_rpc_method_handler(self._session(method, handler.stream_stream), **readers)

    def _refusal(self, details: grpc.HandlerCallDetails) -> FulcrumError | None:
        try:
            self._check_token(CallMetadata.from_pairs(details.invocation_metadata or ()).token)
            self._workers.check_room()
        except FulcrumError as error:
            return error
        return None

    def _refuse(self, method: str, refusal: FulcrumError) -> Any:
        async def behaviour(incoming: Any, context: Any) -> None:
            async with self._answering(method, context, None, refusal):
                pass

        return behaviour

    def _unary(self, method: str, answer: Callable[..., Awaitable[Message]]) -> Any:
        async def behaviour(request: Any, context: Any) -> Message:
            async with self._answering(method, context, self._max_call_s):
                message = self._sized(await answer(_read(request), context))
            return message  # noqa: RET504  # not inside the block, which mypy takes for one that may swallow errors

        return behaviour

    # Coroutines that write, not asynchronous generators: gRPC leaves a generator whose caller went away to the
    # garbage collector, and its place would be taken until then.
    def _stream(self, method: str, answer: Callable[..., AsyncIterator[Message]]) -> Any:
        async def behaviour(request: Any, context: Any) -> None:
            async with self._answering(method, context, self._max_call_s):
                await self._write(answer(_read(request), context), context)

        return behaviour

    def _session(self, method: str, answer: Callable[..., AsyncIterator[Message]]) -> Any:
        async def requests(incoming: Any) -> AsyncIterator[Any]:
            async for request in incoming:
                yield _read(request)

        async def behaviour(incoming: Any, context: Any) -> None:
            async with self._answering(method, context, None):
                await self._write(answer(requests(incoming), context), context)

        return behaviour

    async def _write(self, messages: AsyncIterator[Message], context: Any) -> None:
        async with aclosing(messages) as open_messages:  # type: ignore[type-var]  # they are generators
            async for message in open_messages:
                sized = self._sized(message)
                try:
                    # A session has no limit of its own, and a caller that never reads fills its window.
                    async with asyncio.timeout(self._max_call_s):
                        await context.write(sized)
                except TimeoutError:
                    raise DeadlineExceeded(
                        f"an answer waited longer than {self._max_call_s:g} s for its caller to read it"
                    ) from None
                except grpc.aio.BaseError as error:
                    # gRPC's word for a caller that went away during the write.
                    raise asyncio.CancelledError from error

    def _sized(self, message: Message) -> Message:
        size = message.ByteSize()
        if size > self._max_message_bytes:
            raise PayloadTooLarge(
                f"the answer would have {size} bytes, {self._max_message_bytes} are allowed: ask for less at once"
            )
        return message

    @asynccontextmanager
    async def _answering(
        self, method: str, context: Any, limit_s: float | None, refusal: FulcrumError | None = None
    ) -> AsyncIterator[Call]:
        """Errors leave as one status with a reason, whatever they were; aborting raises. `limit_s` is our own."""
        sent = CallMetadata.from_pairs(context.invocation_metadata() or ())
        request_id = sent.request_id
        if not request_id or len(request_id) > _MAX_NAME or not request_id.isprintable():
            request_id = new_id("req")
        telemetry.request_id.set(request_id)
        remaining = context.time_remaining()
        allowed_s = self._max_call_s if remaining is None else min(remaining, self._max_call_s)
        call = Call(method, sent.user[:_MAX_NAME], time.monotonic() + allowed_s)
        current_call.set(call)
        began, reason = time.perf_counter(), "OK"
        failure: FulcrumError | None = None
        with (
            telemetry.incoming_trace({TRACEPARENT: sent.traceparent} if sent.traceparent else {}),
            telemetry.tracer(__name__).start_as_current_span(f"inference.{method}") as span,
        ):
            try:
                if refusal is not None:
                    raise refusal
                self._workers.enter(call)
                try:
                    # The caller's own deadline is gRPC's to keep: it cancels this task.
                    async with asyncio.timeout(limit_s):
                        yield call
                finally:
                    self._workers.leave(call)
            except TimeoutError:
                failure = DeadlineExceeded(
                    f"the call took longer than {limit_s:g} s, which is the limit here"
                )
                reason = failure.reason
            except FulcrumError as error:
                reason, failure = error.reason, self.shown(error)
            except grpc.aio.AbortError:
                reason = InternalError.reason
                raise
            except Exception:
                log.exception("call failed", method=method, user=call.user)
                failure = InternalError(
                    f"request {request_id} failed by a fault of the service; its log says more"
                )
                reason = failure.reason
            except asyncio.CancelledError:
                if not call.given_up:  # the caller went away, or its deadline passed
                    late = time.monotonic() >= call.deadline
                    reason = DeadlineExceeded.reason if late else Cancelled.reason
                    raise
                if call.task is not None:
                    call.task.uncancel()
                failure = stopping_error()
                reason = failure.reason
            finally:
                took_s = time.perf_counter() - began
                span.set_attribute("fulcrum.reason", reason)
                self._metrics.answered(call, reason, took_s)
                # After the answer has left: a line takes its third of a millisecond, as long as reading the request.
                asyncio.get_running_loop().call_soon(
                    partial(
                        log.info,
                        "call",
                        method=method,
                        user=call.user,
                        reason=reason,
                        took_ms=round(took_s * 1000, 2),
                        queue_ms=round(call.queue_ms, 2),
                        batch_size=call.batch_size,
                    )
                )
        if failure is not None:
            await context.abort(*to_abort(failure))

    def _check_token(self, given: str | None) -> None:
        if self._token is None:
            return
        if given is None or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Unauthenticated(
                "the internal token is missing or wrong: send `authorization: Bearer TOKEN`"
            )

    def shown(self, error: FulcrumError) -> FulcrumError:
        """The error without what callers need not know."""
        shown = copy.copy(error)
        shown.args = (self._public(str(error)),)
        return shown


class _Unreadable:
    """Stands for a request whose bytes are no message of its type."""


def _lenient(read: Callable[[bytes], Message] | None) -> Callable[[bytes], Any] | None:
    """GRPC would answer UNKNOWN with a Python class name, before any of our code runs."""
    if read is None:
        return None

    def readable(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _Unreadable()

    return readable


def _read(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise InvalidRequest("the bytes are not a message of this call's request type")
    return request
