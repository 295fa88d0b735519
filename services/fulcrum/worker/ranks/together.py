"""Processes that train together, as their worker sees them: started, heard, told to stop, and never left behind."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fulcrum.domain.errors import FulcrumError, InternalError, ServiceUnavailable, Unavailable, by_reason
from fulcrum.worker.ranks.lines import (
    OS_ERROR,
    STOP,
    Done,
    Failed,
    Note,
    Point,
    Question,
    Read,
    Said,
    Saved,
    Step,
    line_of,
    said_in,
)

if TYPE_CHECKING:
    import torch

    from fulcrum.engine.sae_training import Watching

PROGRAM = (sys.executable, "-P", "-m", "fulcrum.worker.ranks")
_HEAR_EVERY_S = 0.1  # how soon a cancelled job ends
# Once a training was told to stop. A worker waits ten seconds longer than it drains before it kills what it has.
_STOP_S = 8.0
_LAST_WORDS_S = 3.0  # for those that lost one of them to say why
_EXIT_S = 5.0  # from the last word to the end
_AGAIN_S = 5.0
_CHUNK_BYTES = 1 << 16
_BY_REASON = by_reason()


@dataclass(frozen=True)
class TrainingProcesses:
    """How many processes train one SAE, and what they need that a worker's own process has at hand."""

    wanted: int = 1
    artifacts_url: str = ""
    artifacts_cache: Path = Path()
    gpus: tuple[
        str, ...
    ] = ()  # as CUDA_VISIBLE_DEVICES names them, the worker's own first; none: those torch sees
    program: tuple[str, ...] = field(default=PROGRAM, repr=False)

    def number(self, device: "torch.device", batch_size: int) -> int:
        """How many can train: at most one a GPU, and each batch is shared evenly."""
        most = self.wanted
        if device.type == "cuda" and most > 1:
            import torch

            most = min(most, len(self.gpus) or torch.cuda.device_count())
        elif device.type != "cpu":
            most = 1
        return next((n for n in range(most, 1, -1) if batch_size % n == 0), 1)


def train_together(
    questions: Sequence[Question], watching: "Watching", program: Sequence[str] = PROGRAM
) -> bytes:
    """What `run_training` returns, and raises, of the processes that these questions start; `watching` is asked in this
    thread, and what it raises ends them. When this returns or raises none of them lives.

    Raises also ServiceUnavailable for one that was killed, and OSError.
    """
    with _Together(questions, program) as together:
        return together.run(watching)


class _Process:
    """One of them, with the line to it."""

    def __init__(self, question: Question, program: Sequence[str]) -> None:
        self.name = f"process {question.rank + 1} of {question.size} of the training"
        self.wire, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                process_group=0,  # an interrupt at the terminal is the worker's, which lets it write a checkpoint
                stdin=subprocess.DEVNULL,
                stdout=2,  # the worker's log
            )
        self._heard = b""
        self.failed: Failed | None = None
        with suppress(OSError):  # it died at once, which is heard
            self.wire.sendall(line_of(question))
        self.wire.setblocking(False)

    def hear(self) -> tuple[list[Said], bool]:
        """What it has said, and whether that was all that it ever says."""
        try:
            received = self.wire.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return [], False
        except OSError:
            received = b""
        *lines, self._heard = (self._heard + received).split(b"\n")
        return [said_in(line) for line in lines], not received

    def stop(self) -> None:
        """Ask for a checkpoint and an end."""
        with suppress(OSError):  # it is gone, which is heard
            self.wire.send(STOP)

    def status(self) -> int | None:
        """As `subprocess` gives it; None where it says no more and does not end."""
        try:
            return self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """It and whatever it has started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """After `kill`."""
        self._process.wait()
        self.wire.close()


class _Together:
    """All of them. Inside `with` they live, afterwards none does."""

    def __init__(self, questions: Sequence[Question], program: Sequence[str]) -> None:
        self._questions, self._program = questions, program
        self._processes: list[_Process] = []
        self._ended: list[_Process] = []  # in this order
        self._selector = selectors.DefaultSelector()
        self._at: Step | None = None
        self._stop_until: float | None = None

    def run(self, watching: "Watching") -> bytes:
        """What the first leaves; nothing where it was told to stop."""
        while self._stop_until is None or time.monotonic() < self._stop_until:
            for said in self._hear():
                if isinstance(said, Done):
                    return b"" if said.weights is None else Path(said.weights).read_bytes()
                self._relay(said, watching)
            if any(p.failed is not None or self._is_lost(p) for p in self._processes):
                raise self._why()
            self._ask(watching)
        return b""

    def _hear(self) -> list[Said]:
        """What was said, but for failures, which stand at the processes."""
        heard: list[Said] = []
        for key, _ in self._selector.select(_HEAR_EVERY_S):
            process: _Process = key.data
            lines, ended = process.hear()
            for said in lines:
                if isinstance(said, Failed):
                    process.failed = said
                else:
                    heard.append(said)
            if ended:
                self._selector.unregister(process.wire)
                self._ended.append(process)
        return heard

    def _relay(self, said: Said, watching: "Watching") -> None:
        match said:
            case Read():
                if self._at is None:
                    watching.activations(said.n_tokens)
            case Step():
                self._at = said
            case Saved():
                watching.saved()
            case Point():
                watching.point(said.values)
            case Note():
                watching.note(said.text)
            case Done() | Failed():
                raise AssertionError(said)

    def _ask(self, watching: "Watching") -> None:
        """Whether to go on. While activations are read between steps too: there is a checkpoint to write."""
        if self._at is None:
            watching.activations(0)
        elif watching.step(self._at.n_steps, self._at.n_steps_in_all) is False and self._stop_until is None:
            self._processes[0].stop()
            self._stop_until = time.monotonic() + _STOP_S

    def _is_lost(self, process: _Process) -> bool:
        # The first says that it is done; the others end without a word.
        return process in self._ended and (process is self._processes[0] or process.status() != 0)

    def _why(self) -> Exception:
        """The best that any of them says: those that lose one of them say no more than that."""
        until = time.monotonic() + _LAST_WORDS_S
        while time.monotonic() < until:
            failures = [p.failed for p in self._processes if p.failed is not None]
            telling = [f for f in failures if f.reason != InternalError.reason]
            if telling:
                return _error_of(telling[0])
            if all(p.failed is not None or p in self._ended for p in self._processes):
                break
            self._hear()
        for process in self._ended:
            status = process.status()
            if status is not None and status < 0:
                return ServiceUnavailable(
                    f"{process.name} was killed (signal {-status}), as by a machine that has no memory left",
                    _AGAIN_S,
                )
        if failures:
            return _error_of(failures[0])
        (process, *_) = self._ended
        return InternalError(f"{process.name} ended without a word; the worker's log has more")

    def __enter__(self) -> Self:
        try:
            for question in self._questions:
                process = _Process(question, self._program)
                self._processes.append(process)
                self._selector.register(process.wire, selectors.EVENT_READ, process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.reap()
        self._selector.close()


def _error_of(failed: Failed) -> Exception:
    if failed.reason == OS_ERROR:
        return OSError(failed.text)
    kind: type[FulcrumError] = _BY_REASON.get(failed.reason, InternalError)
    if issubclass(kind, Unavailable):
        return kind(failed.text, failed.retry_after_s)
    return kind(failed.text)
