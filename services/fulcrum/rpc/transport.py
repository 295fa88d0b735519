"""One call over one of several replicas, for programs that wait for their answers."""

import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import grpc

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.rpc.channels import TlsFiles, addresses_of, open_channel
from fulcrum.rpc.convert import to_message
from fulcrum.rpc.errors import from_rpc_error, was_lost
from fulcrum.rpc.health import CHECK, health_stub, serves
from fulcrum.rpc.metadata import CallMetadata, carried_pairs
from fulcrum.rpc.replicas import Attempts, Deadline, in_order
from fulcrum.rpc.v1 import inference_pb2_grpc

Carried = Callable[[], Mapping[str, str]]

LOAD_TIMEOUT_S = 600.0


class Transport:
    """Stubs of all replicas; asks the one that knows the image, and another where that one is away or busy."""

    def __init__(
        self, address: str, token: str | None, tls: TlsFiles | None, user: str, carried: Carried | None
    ) -> None:
        self.addresses = addresses_of(address)
        self._own = CallMetadata(user=user, token=token).to_pairs()
        self._carried = carried
        self._closed = threading.Event()
        self._channels = {a: open_channel(a, tls) for a in self.addresses}
        self._stubs: dict[str, Any] = {
            a: inference_pb2_grpc.InferenceStub(c) for a, c in self._channels.items()
        }
        # Made here, because a stub made of a closed channel crashes the process.
        self._health = {a: health_stub(c) for a, c in self._channels.items()}

    def ask(self, method: str, request: Any, timeout_s: float | None, only: str | None = None) -> Any:
        """The response message of `method`; `only` names the one replica to ask. Raises domain errors."""
        message = to_message(request)
        deadline = Deadline(timeout_s)
        return self._first(
            request,
            only,
            lambda stub: getattr(stub, method)(message, timeout=deadline.left_s(), metadata=self._metadata()),
        )

    def stream(self, method: str, request: Any, timeout_s: float | None) -> Generator[Any, None, None]:
        """The messages of `method`; closing the iterator cancels the call. Raises domain errors."""
        message = to_message(request)
        deadline = Deadline(timeout_s)

        def begin(stub: Any) -> tuple[Any, Any]:
            call = getattr(stub, method)(message, timeout=deadline.left_s(), metadata=self._metadata())
            # Another replica may be asked until the first event was shown to somebody.
            return call, next(call, None)

        call, event = self._first(request, None, begin)
        try:
            while event is not None:
                yield event
                event = next(call, None)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    def serving(self, timeout_s: float) -> dict[str, bool]:
        """For each replica whether it is reachable and says that it serves."""
        found = {}
        for address, stub in self._health.items():
            try:
                response = stub.Check(CHECK, timeout=timeout_s, metadata=self._metadata())
                found[address] = serves(response)
            except (grpc.RpcError, ValueError):  # ValueError: the channel was closed
                found[address] = False
        return found

    def close(self) -> None:
        """Ends running calls and closes the connections."""
        self._closed.set()
        for channel in self._channels.values():
            channel.close()

    def _first(self, request: Any, only: str | None, call: Callable[[Any], Any]) -> Any:
        attempts = Attempts()
        for address in (only,) if only else in_order(self.addresses, request):
            try:
                return call(self._stubs[address])
            except grpc.RpcError as error:
                translated = from_rpc_error(error)
                if not attempts.go_on(translated, lost=was_lost(error)):
                    raise translated from error
            except ValueError as error:
                if self._closed.is_set():  # gRPC's own word for it is a ValueError
                    raise ServiceUnavailable("this engine was closed") from error
                raise
        raise attempts.outcome()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self._own + carried_pairs(self._carried() if self._carried else {})
