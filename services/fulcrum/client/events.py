"""Server-sent events out of the bytes of an answer (WHATWG HTML, 9.2 Server-sent events)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event; `name` is `message` where the server gave none."""

    name: str
    data: str

    def json(self) -> Any:
        """The data as JSON. Raises ValueError."""
        return json.loads(self.data)


class EventDecoder:
    """Takes chunks cut anywhere, also inside a character or a line break."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Events that are complete with this chunk."""
        data = self._rest + chunk
        # A carriage return at the very end may be half of a line break.
        held = data[-1:] if data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        self._rest = rest + held
        for line in lines:
            event = self._line(line.decode("utf-8", errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case _:  # comments keep the connection open; `id` and `retry` serve reconnecting, which we do not
                pass
        return None
