"""The services of a local platform as a live table; lines where nobody watches a terminal."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from fulcrum.cli.output import err

if TYPE_CHECKING:
    from fulcrum.local.supervisor import ChildStatus

_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "waiting": "dim",
    "unhealthy": "yellow",
    "restarting": "red",
    "stopping": "yellow",
    "stopped": "dim",
    "failed": "bold red",
}


class StatusBoard:
    """`show` takes the table of the supervisor, from any thread, and draws it where there is something to see."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._last: tuple[ChildStatus, ...] = ()
        self._lock = threading.Lock()
        self._live: Live | None = None

    def show(self, status: "tuple[ChildStatus, ...]") -> None:
        """The newest table."""
        with self._lock:
            before, self._last = {s.name: s.state for s in self._last}, status
            if self._quiet or self._live is not None:
                return  # a live table asks for itself
            for child in status:
                if before.get(child.name) != child.state and child.state != "waiting":
                    err.print(_line(child), highlight=False, markup=False)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Inside, a table that follows the states, on a terminal; it stays as it is at the end."""
        if self._quiet or not err.is_terminal:
            yield
            return
        with Live(console=err, get_renderable=self._table, refresh_per_second=4) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("service", "state", "since", "process", "restarts", ""):
            table.add_column(name, justify="right" if name in ("since", "process", "restarts") else "left")
        for child in self._last:
            table.add_row(
                child.name,
                f"[{_STYLES[child.state]}]{child.state}[/]",
                _duration(time.monotonic() - child.since),
                "" if child.pid is None else str(child.pid),
                str(child.n_restarts or ""),
                _escape(child.note or child.detail),
            )
        return table


def _line(child: "ChildStatus") -> str:
    more = child.note or (child.detail if child.state == "ready" else "")
    return f"{child.name:<10} {child.state}" + (f"  {more}" if more else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f}"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
