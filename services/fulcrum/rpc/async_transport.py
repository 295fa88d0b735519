"""One call over one of several replicas, for asyncio programs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.rpc.channels import TlsFiles, addresses_of, open_async_channel
from fulcrum.rpc.convert import to_message
from fulcrum.rpc.errors import from_rpc_error, was_lost
from fulcrum.rpc.health import CHECK, health_stub, serves
from fulcrum.rpc.metadata import CallMetadata, carried_pairs
from fulcrum.rpc.replicas import Attempts, Deadline, in_order
from fulcrum.rpc.transport import Carried
from fulcrum.rpc.v1 import inference_pb2_grpc

_CONNECT_S = 5.0
_SETTLED = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

_Metadata = tuple[tuple[str, str], ...]


class AsyncTransport:
    """Stubs of all replicas; asks the one that knows the image, and another where that one is away or busy.

    Channels open at the first call, because they belong to the event loop that runs then.
    """

    def __init__(
        self, address: str, token: str | None, tls: TlsFiles | None, carried: Carried | None
    ) -> None:
        self.addresses = addresses_of(address)
        self._token = token
        self._tls = tls
        self._carried = carried
        self._channels: dict[str, Any] = {}
        self._stubs: dict[str, Any] = {}
        self._closed = False

    async def ask(
        self, method: str, request: Any, user: str, timeout_s: float | None, only: str | None = None
    ) -> Any:
        """The response message of `method`; `only` names the one replica to ask. Raises domain errors."""
        message = to_message(request)
        deadline = Deadline(timeout_s)
        metadata = self.metadata(user)

        async def call(stub: Any) -> Any:
            return await getattr(stub, method)(message, timeout=deadline.left_s(), metadata=metadata)

        return await self._first(request, only, call)

    async def stream(
        self, method: str, request: Any, user: str, timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        """The messages of `method`; closing the generator cancels the call. Raises domain errors."""
        message = to_message(request)
        deadline = Deadline(timeout_s)
        metadata = self.metadata(user)

        async def begin(stub: Any) -> tuple[Any, Any]:
            call = getattr(stub, method)(message, timeout=deadline.left_s(), metadata=metadata)
            # Another replica may be asked until the first event was shown to somebody.
            return call, await call.read()

        call, event = await self._first(request, None, begin)
        try:
            while event is not grpc.aio.EOF:
                yield event
                event = await call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def serving(self, timeout_s: float) -> dict[str, bool]:
        """For each replica whether it is reachable and says that it serves."""

        async def one(address: str) -> bool:
            try:
                check = health_stub(self._channel(address)).Check
                return serves(await check(CHECK, timeout=timeout_s, metadata=self.metadata("")))
            except (grpc.RpcError, ServiceUnavailable):
                return False

        found = await asyncio.gather(*(one(a) for a in self.addresses))
        return dict(zip(self.addresses, found, strict=True))

    async def aclose(self) -> None:
        """Ends running calls and closes the connections."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close()

    async def connected(self, request: Any) -> Any:
        """The stub of the first replica in order that a connection leads to. Raises ServiceUnavailable.

        For a call whose requests come one by one, which cannot be begun again elsewhere.
        """
        for address in in_order(self.addresses, request):
            channel = self._channel(address)
            state = channel.get_state(try_to_connect=True)
            deadline = Deadline(_CONNECT_S)
            while state not in _SETTLED and not deadline.passed():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(channel.wait_for_state_change(state), deadline.left_s())
                state = channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return self._stubs[address]
        raise ServiceUnavailable(f"no replica of the inference service can be reached: {self.addresses}", 1.0)

    def _stub(self, address: str) -> Any:
        self._channel(address)
        return self._stubs[address]

    def metadata(self, user: str) -> _Metadata:
        """What travels beside a message of this user."""
        own = CallMetadata(user=user, token=self._token).to_pairs()
        return own + carried_pairs(self._carried() if self._carried else {})

    def _channel(self, address: str) -> Any:
        if self._closed:
            raise ServiceUnavailable("this engine was closed")
        if address not in self._channels:
            channel = self._channels[address] = open_async_channel(address, self._tls)
            self._stubs[address] = inference_pb2_grpc.InferenceStub(channel)
        return self._channels[address]

    async def _first(self, request: Any, only: str | None, call: Callable[[Any], Awaitable[Any]]) -> Any:
        attempts = Attempts()
        for address in (only,) if only else in_order(self.addresses, request):
            try:
                return await call(self._stub(address))
            except grpc.RpcError as error:
                translated = from_rpc_error(error)
                if not attempts.go_on(translated, lost=was_lost(error)):
                    raise translated from error
        raise attempts.outcome()
