"""Flows played without a network, and gateways that answer from a function."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from fulcrum.client import AsyncClient, Client
from fulcrum.client.connection import Address
from fulcrum.client.steps import Chunk, Close, Emit, Open, Response, Running, Send, Sleep
from fulcrum.domain.codec import to_json

URL, TOKEN = "http://gateway.test", "fct_tok_secret"


class FixedConnection:
    """An address that never changes, unless told what comes next."""

    def __init__(self, *following: Address) -> None:
        self.address = Address(URL, TOKEN)
        self._following = list(following)

    def renew(self) -> bool:
        if not self._following:
            return False
        self.address = self._following.pop(0)
        return True


class Played:
    """What a flow did with the answers it got; an exception among them is thrown where the step failed."""

    def __init__(self, flow: Any, answers: list[Any]) -> None:
        self.requests: list[Any] = []
        self.waits: list[float] = []
        self.items: list[Any] = []
        self.closed = False
        self.error: Exception | None = None
        self.value: Any = None
        left: Iterator[Any] = iter(answers)
        try:
            running = Running(flow)
            while running.step is not None:
                answer: Any = None
                match running.step:
                    case Send(request) | Open(request):
                        self.requests.append(request)
                        answer = next(left)
                    case Chunk():
                        answer = next(left)
                    case Sleep(seconds):
                        self.waits.append(seconds)
                    case Emit(item):
                        self.items.append(item)
                    case Close():
                        self.closed = True
                if isinstance(answer, Exception):
                    running.fail(answer)
                else:
                    running.answer(answer)
            self.value = running.value
        except Exception as error:
            self.error = error
        assert next(left, None) is None, "the flow did not want all answers"


def ok(content: Any, status: int = 200) -> Response:
    import json

    return Response(status, {"content-type": "application/json"}, json.dumps(to_json(content)).encode())


def problem(reason: str, status: int, detail: str = "it failed", **headers: str) -> Response:
    import json

    content = {"reason": reason, "status": status, "detail": detail, "request_id": "req_1"}
    return Response(
        status, {"content-type": "application/problem+json", **headers}, json.dumps(content).encode()
    )


Handler = Callable[[httpx.Request], httpx.Response]


class Blocking:
    """Asks through `Client`."""

    def __init__(self, handler: Handler, **kwargs: Any) -> None:
        self._client = Client(URL, TOKEN, transport=httpx.MockTransport(handler), **kwargs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return _find(self._client, name)(*args, **kwargs)

    def items(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        return list(_find(self._client, name)(*args, **kwargs))

    def stream(self, name: str, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        with _find(self._client, name)(*args, **kwargs) as stream:
            return list(stream), stream.result()

    def first(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with _find(self._client, name)(*args, **kwargs) as stream:
            return next(stream)

    def close(self) -> None:
        self._client.close()


class Awaiting:
    """Asks through `AsyncClient`; with a mock transport every call may have its own event loop."""

    def __init__(self, handler: Handler, **kwargs: Any) -> None:
        self._client = AsyncClient(URL, TOKEN, transport=httpx.MockTransport(handler), **kwargs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def ask() -> Any:
            return await _find(self._client, name)(*args, **kwargs)

        return asyncio.run(ask())

    def items(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        async def ask() -> list[Any]:
            return [item async for item in _find(self._client, name)(*args, **kwargs)]

        return asyncio.run(ask())

    def stream(self, name: str, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        async def ask() -> tuple[list[Any], Any]:
            async with _find(self._client, name)(*args, **kwargs) as stream:
                return [item async for item in stream], await stream.result()

        return asyncio.run(ask())

    def first(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def ask() -> Any:
            async with _find(self._client, name)(*args, **kwargs) as stream:
                return await anext(stream)

        return asyncio.run(ask())

    def close(self) -> None:
        asyncio.run(self._client.aclose())


def _find(client: Any, name: str) -> Any:
    for part in name.split("."):
        client = getattr(client, part)
    return client
