"""What the SDK asks of the outside world, as values: the logic yields steps, a driver performs them.

So each endpoint is written once and serves the blocking and the awaiting client alike, and all of it is tested
without a socket.
"""

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from fulcrum.domain.errors import Cancelled

T = TypeVar("T")


@dataclass(frozen=True)
class FilePart:
    """One file of a multipart body. A path is opened when the request is sent and read piece by piece."""

    field: str
    filename: str
    content: bytes | Path
    media_type: str = "application/octet-stream"


class Body(Protocol):
    """A body of any size, read piece by piece whenever the request is sent."""

    def size_bytes(self) -> int | None:
        """How long it is, None where that shows at its end only."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """All of it, from the beginning. Raises InvalidRequest for what cannot be read."""
        ...


@dataclass(frozen=True)
class Request:
    """An HTTP request without the address and the token, which belong to the connection."""

    method: str
    path: str
    params: Mapping[str, str | list[str]] = field(default_factory=dict)  # a list: the name several times
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    fields: Mapping[str, str] = field(default_factory=dict)  # of a multipart body, beside the files
    files: tuple[FilePart, ...] = ()
    body: Body | None = None  # instead of JSON and files


@dataclass(frozen=True)
class Response:
    """An HTTP answer. `headers` have lower-case names; `body` is empty while a stream is still open."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """Content type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Send:
    """Send and read the whole answer: a `Response`."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send and read the head: a `Response`, with the body where the status is an error."""

    request: Request


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the opened answer, None at its end."""


@dataclass(frozen=True)
class Close:
    """Close the opened answer early."""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand an item to the caller who iterates."""

    item: T


Step: TypeAlias = Send | Open | Chunk | Close | Sleep | Emit[Any]
Flow: TypeAlias = Generator[Step, Any, T]  # returns T; what a step yields depends on the step


class Running(Generic[T]):
    """A flow on its way: `step` is what it waits for, None once it ended and `value` is there."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self._value: list[T] = []
        self.step: Step | None = None
        self._advance(lambda: next(flow))

    @property
    def value(self) -> T:
        """What the flow returned. Raises Cancelled for one that was closed before its end."""
        if not self._value:
            raise Cancelled("the stream was closed before its end: there is no whole answer")
        return self._value[0]

    def answer(self, answer: Any) -> None:
        """Goes on with what the step brought. Raises what the flow raises."""
        self._advance(lambda: self._flow.send(answer))

    def fail(self, error: Exception) -> None:
        """Goes on where the step failed. Raises what the flow does not handle."""
        self._advance(lambda: self._flow.throw(error))

    def close(self) -> None:
        """Ends a flow that nobody waits for any more."""
        self._flow.close()

    def _advance(self, move: Any) -> None:
        try:
            self.step = move()
        except StopIteration as end:
            self.step = None
            self._value.append(end.value)
