"""The two that touch the network: they perform steps, blocking or awaiting, and decide nothing."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Protocol, TypeVar

import httpx

from fulcrum import __version__
from fulcrum.client.connection import Connection
from fulcrum.client.retries import ConnectionLost
from fulcrum.client.steps import Chunk, Close, Emit, Flow, Open, Request, Response, Running, Send, Sleep
from fulcrum.client.streams import AsyncStream, Stream
from fulcrum.domain.errors import DeadlineExceeded, InternalError, InvalidRequest

T = TypeVar("T")

SESSION_COOKIE = "fulcrum_session"  # the gateway's


class Driver(Protocol):
    """Performs flows: `call` for their value, `iterate` for what they emit."""

    def call(self, flow: Flow[Any]) -> Any:
        """The flow's value, or a coroutine of it."""
        ...

    def iterate(self, running: Running[Any]) -> Any:
        """Iterator or asynchronous iterator of what it emits; afterwards `running.value` is there."""
        ...

    def stream(self, flow: Flow[Any]) -> Any:
        """What it emits and its value, as Stream or AsyncStream."""
        ...


class SyncDriver:
    """Performs flows in the calling thread; safe to share between threads."""

    def __init__(
        self, connection: Connection, timeout_s: float, transport: httpx.BaseTransport | None
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._http = httpx.Client(transport=transport, **_options(timeout_s))

    def call(self, flow: Flow[T]) -> T:
        """The flow's value."""
        running = Running(flow)
        for _ in self.iterate(running):
            pass
        return running.value

    def iterate(self, running: Running[Any]) -> Generator[Any, None, None]:
        """What the flow emits. Closing the iterator closes an open stream."""
        with ExitStack() as flow, ExitStack() as opened:
            flow.callback(running.close)  # apart from the stream, which the flow may close before its own end
            chunks: Iterator[bytes] | None = None
            while (step := running.step) is not None:
                answer: Any = None
                try:
                    match step:
                        case Emit(item):
                            yield item
                        case Send(request):
                            with ExitStack() as files:
                                answer = _read(self._http.request(**self._arguments(request, files)))
                        case Open(request):
                            stream = self._http.stream(**self._arguments(request, opened))
                            response = opened.enter_context(stream)
                            if response.status_code >= 300:
                                response.read()
                                answer = _read(response)
                            else:
                                answer = _head(response)
                                chunks = response.iter_bytes()
                        case Chunk():
                            assert chunks is not None, "a flow opens a stream before it reads"
                            answer = next(chunks, None)
                        case Close():
                            opened.pop_all().close()
                        case Sleep(seconds):
                            time.sleep(seconds)
                except httpx.RequestError as error:
                    running.fail(_translated(error, self._timeout_s))
                else:
                    running.answer(answer)

    def stream(self, flow: Flow[T]) -> Stream[Any, T]:
        """What the flow emits and its value."""
        running = Running(flow)
        return Stream(running, self.iterate(running))

    def _arguments(self, request: Request, files: ExitStack) -> dict[str, Any]:
        return _arguments(self._connection, request, files)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


class AsyncDriver:
    """Performs flows in the running event loop of asyncio."""

    def __init__(
        self, connection: Connection, timeout_s: float, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(transport=transport, **_options(timeout_s))

    def call(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        """A coroutine of the flow's value."""

        async def value() -> T:
            running = Running(flow)
            async for _ in self.iterate(running):
                pass
            return running.value

        return value()

    async def iterate(self, running: Running[Any]) -> AsyncGenerator[Any, None]:
        """What the flow emits."""
        async with AsyncExitStack() as flow, AsyncExitStack() as opened:
            flow.callback(running.close)  # apart from the stream, which the flow may close before its own end
            chunks: AsyncIterator[bytes] | None = None
            while (step := running.step) is not None:
                answer: Any = None
                try:
                    match step:
                        case Emit(item):
                            yield item
                        case Send(request):
                            with ExitStack() as files:
                                answer = _read(await self._http.request(**self._arguments(request, files)))
                        case Open(request):
                            files = opened.enter_context(ExitStack())
                            stream = self._http.stream(**self._arguments(request, files))
                            response = await opened.enter_async_context(stream)
                            if response.status_code >= 300:
                                await response.aread()
                                answer = _read(response)
                            else:
                                answer = _head(response)
                                chunks = response.aiter_bytes()
                        case Chunk():
                            assert chunks is not None, "a flow opens a stream before it reads"
                            answer = await anext(chunks, None)
                        case Close():
                            await opened.pop_all().aclose()
                        case Sleep(seconds):
                            await asyncio.sleep(seconds)
                except httpx.RequestError as error:
                    running.fail(_translated(error, self._timeout_s))
                else:
                    running.answer(answer)

    def stream(self, flow: Flow[T]) -> AsyncStream[Any, T]:
        """What the flow emits and its value."""
        running = Running(flow)
        return AsyncStream(running, self.iterate(running))

    def _arguments(self, request: Request, files: ExitStack) -> dict[str, Any]:
        arguments = _arguments(self._connection, request, files)
        if request.body is not None:
            arguments["content"] = _awaited(request.body.chunks())
        return arguments

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
        # Below the 5 s after which uvicorn closes an idle connection, so that none is used while it is being closed.
        "limits": httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=4.0),
        "headers": {"User-Agent": f"fulcrum-client/{__version__}"},
        "follow_redirects": False,  # the token goes to the address that was named, and nowhere else
        # A lab's HTTP_PROXY is for the world outside; it cannot reach the `fulcrum up` of this machine.
        "mounts": {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
    }


def _arguments(connection: Connection, request: Request, files: ExitStack) -> dict[str, Any]:
    address = connection.address
    headers = dict(request.headers)
    if address.token is not None:
        headers["Authorization"] = f"Bearer {address.token}"
    if address.login is not None:
        headers["Cookie"] = f"{SESSION_COOKIE}={address.login}"
        headers["X-Fulcrum-Request"] = "1"  # says that no foreign page made the browser send it
    arguments: dict[str, Any] = {
        "method": request.method,
        "url": address.url + request.path,
        "params": dict(request.params) or None,
        "headers": headers,
    }
    if request.files:
        parts = []
        for part in request.files:
            content: Any = part.content
            if not isinstance(content, bytes):
                try:
                    content = files.enter_context(content.open("rb"))
                except OSError as error:
                    raise InvalidRequest(f"{str(part.content)!r} cannot be read: {error.strerror}") from error
            parts.append((part.field, (part.filename, content, part.media_type)))
        return {**arguments, "files": parts, "data": dict(request.fields)}
    if request.body is not None:
        headers["Content-Type"] = "application/octet-stream"
        size = request.body.size_bytes()
        if size is not None:
            headers["Content-Length"] = str(size)
        arguments["content"] = request.body.chunks()
    if request.json is not None:
        arguments["json"] = request.json
    return arguments


async def _awaited(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _read(response: httpx.Response) -> Response:
    return Response(response.status_code, _headers(response), response.content)


def _head(response: httpx.Response) -> Response:
    return Response(response.status_code, _headers(response))


def _headers(response: httpx.Response) -> dict[str, str]:
    return {k.lower(): v for k, v in response.headers.items()}


def _translated(error: httpx.RequestError, timeout_s: float) -> Exception:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return ConnectionLost(str(error) or type(error).__name__, sent=False)
        case httpx.TimeoutException():
            return DeadlineExceeded(f"no answer within timeout_s={timeout_s:g}")
        case httpx.TransportError():
            return ConnectionLost(str(error) or type(error).__name__, sent=True)
        case _:
            return InternalError(f"the answer cannot be read: {error}")
