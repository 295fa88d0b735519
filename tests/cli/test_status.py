import io
import time

import pytest
from rich.console import Console

from fulcrum.cli import status as board_module
from fulcrum.cli.status import StatusBoard
from fulcrum.local.supervisor import ChildStatus


def child(state, **more):
    return ChildStatus("gateway", state, time.monotonic() - 90, **more)


@pytest.fixture
def written(monkeypatch):
    """What a person would see; `written.terminal()` makes it a terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(board_module, "err", Console(file=stream, width=120))
    stream.terminal = lambda: monkeypatch.setattr(
        board_module, "err", Console(file=stream, width=120, force_terminal=True)
    )
    return stream


def test_where_nobody_watches_each_change_of_state_is_a_line(written):
    board = StatusBoard()
    with board.live():
        board.show((child("waiting", note="for redis"),))
        board.show((child("starting"),))
        board.show((child("starting", note="no answer"),))
        board.show((child("ready", pid=7, detail="http://127.0.0.1:8080"),))
    assert written.getvalue().splitlines() == [
        "gateway    starting",
        "gateway    ready  http://127.0.0.1:8080",
    ]


def test_on_a_terminal_the_table_shows_state_age_process_and_what_is_missing(written):
    written.terminal()
    board = StatusBoard()
    with board.live():
        board.show((child("restarting", n_restarts=2, note="it ended with [signal 9]"),))
    shown = written.getvalue()
    for word in ("gateway", "restarting", "1 min", "2", "it ended with [signal 9]"):
        assert word in shown


def test_a_quiet_board_says_nothing(written):
    board = StatusBoard(quiet=True)
    with board.live():
        board.show((child("failed"),))
    assert written.getvalue() == ""


def test_every_state_has_a_colour():
    from typing import get_args

    from fulcrum.local.supervisor import State

    assert set(board_module._STYLES) == set(get_args(State))
