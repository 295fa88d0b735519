"""Log files of the supervised processes: one of JSON lines for each, and one for people with all of them."""

import json
import logging
import re
import threading
from collections import deque
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

_MAX_BYTES = 16 << 20
_N_KEPT = 3
_MAX_LINE = 256 << 10
_TAIL = 200
# Paths and names come from strangers: a line break in one would forge a line, an escape speak to the terminal.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SHOWN_ELSEWHERE = ("timestamp", "level", "service", "event", "logger")


class LogFolder:
    """`<name>.log` holds JSON lines; `fulcrum.log` the same as `time name | level event key=value`. Files rotate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files: dict[str, RotatingFileHandler] = {}
        self._tails: dict[str, deque[str]] = {}
        self._lock = threading.Lock()
        self._together = _open(folder / "fulcrum.log")

    def path(self, name: str) -> Path:
        """The file of one process."""
        return self.folder / f"{name}.log"

    def tail(self, name: str, n: int = 8) -> list[str]:
        """The last lines that a process wrote since this supervisor started, as a person reads them."""
        with self._lock:
            return list(self._tails.get(name, ()))[-n:]

    def note(self, name: str, event: str, level: str = "info", **fields: Any) -> None:
        """A line of the supervisor's own."""
        self._write(name, {"timestamp": _now(), "level": level, "service": name, "event": event, **fields})

    def follow(self, name: str, stream: IO[bytes]) -> threading.Thread:
        """Copies lines from `stream` until it ends, in a thread of its own."""
        thread = threading.Thread(target=self._pump, args=(name, stream), name=f"log of {name}", daemon=True)
        thread.start()
        return thread

    def _pump(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_MAX_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._write(name, structured(name, text))

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        text = readable(entry)
        with self._lock:
            if name not in self._files:
                self._files[name] = _open(self.path(name))
                self._tails[name] = deque(maxlen=_TAIL)
            self._tails[name].append(text)
            at = str(entry.get("timestamp", ""))[11:23]
            # A full disk must not stop the reading: the process would block on its own log line.
            _append(self._files[name], json.dumps(entry, default=str, ensure_ascii=False))
            _append(self._together, f"{at:<12} {name:<10} | {text}")

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            for file in (*self._files.values(), self._together):
                file.close()
            self._files = {}


def structured(name: str, text: str) -> dict[str, Any]:
    """A JSON line as it is; any other text (Redis, a crash of the interpreter) as the event of one."""
    if text.startswith("{"):
        try:
            entry = json.loads(text)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and "event" in entry:
            return entry
    return {"timestamp": _now(), "level": "info", "service": name, "event": text}


def readable(entry: dict[str, Any]) -> str:
    """`level event key=value ...`, a traceback below it."""
    rest = {k: v for k, v in entry.items() if k not in (*_SHOWN_ELSEWHERE, "exception")}
    pairs = "".join(f" {k}={v}" for k, v in rest.items())
    text = _UNPRINTABLE.sub(_escaped, f"{entry.get('level', 'info'):<8}{entry['event']}{pairs}")
    return f"{text}\n{entry['exception']}" if entry.get("exception") else text


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _open(path: Path) -> RotatingFileHandler:
    handler = RotatingFileHandler(
        path, maxBytes=_MAX_BYTES, backupCount=_N_KEPT, encoding="utf-8", delay=True
    )
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # see _write: reading goes on
    return handler


def _append(file: RotatingFileHandler, line: str) -> None:
    file.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))
