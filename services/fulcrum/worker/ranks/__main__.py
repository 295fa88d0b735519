"""`python -m fulcrum.worker.ranks FD`: one of several processes that train an SAE; FD is the socket to its worker.

It ends with its worker, however that ends, so that it never writes where another attempt has begun.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fulcrum.domain.errors import Conflict, FulcrumError, InternalError
from fulcrum.telemetry import configure_logging, logger
from fulcrum.worker.ranks.lines import (
    OS_ERROR,
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
    question_of,
)

_TELL_EVERY_S = 0.05
_WEIGHTS = "sae.safetensors"
_MEETING = "meeting"
_CHUNK_BYTES = 1 << 16

log = logger(__name__)


class Telling:
    """What the worker hears of the training: its `Watching`."""

    def __init__(self, wire: socket.socket, question: Question) -> None:
        self._wire, self._question = wire, question
        self._n_read, self._told_at = 0, 0.0
        self.stop = threading.Event()
        self.stopped = False

    def say(self, said: Said) -> None:
        """Goes to the worker."""
        self._wire.sendall(line_of(said))

    def activations(self, n_tokens: int) -> None:
        """Told now and then."""
        self._n_read += n_tokens
        if self._is_due():
            self.say(Read(self._n_read))
            self._n_read = 0

    def step(self, n_steps: int, n_steps_in_all: int) -> bool | None:
        """Told now and then; False where the worker has to stop."""
        if self.stop.is_set() and n_steps < n_steps_in_all:
            self.stopped = True
            return False
        if n_steps == n_steps_in_all or self._is_due():
            self.say(Step(n_steps, n_steps_in_all))
        return None

    def saved(self) -> None:
        """A checkpoint was written."""
        self.say(Saved())

    def point(self, values: dict[str, float]) -> None:
        """Of the curves."""
        self.say(Point(values))

    def note(self, text: str) -> None:
        """A warning."""
        self.say(Note(text))

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Whatever is raised inside is told, and ends the process: nothing is tidied up that could wait for others."""
        try:
            yield
        except Exception as error:
            with suppress(OSError):
                self.say(self._failed(error))
            os._exit(1)

    def _failed(self, error: Exception) -> Failed:
        if isinstance(error, FulcrumError):
            return Failed(error.reason, str(error), error.retry_after_s)
        if isinstance(error, OSError):
            return Failed(OS_ERROR, str(error))
        log.exception("a process of a training failed", rank=self._question.rank)
        which, name = f"{self._question.rank + 1} of {self._question.size}", type(error).__name__
        return Failed(
            InternalError.reason,
            f"process {which} of the training failed with {name}; the worker's log has more",
        )

    def _is_due(self) -> bool:
        at = time.monotonic()
        if at - self._told_at < _TELL_EVERY_S:
            return False
        self._told_at = at
        return True


def _asked(wire: socket.socket) -> Question | None:
    """None where the worker is gone before it has asked."""
    line = b""
    while not line.endswith(b"\n"):
        received = wire.recv(_CHUNK_BYTES)
        if not received:
            return None
        line += received
    return question_of(line)


def _listen(wire: socket.socket, telling: Telling) -> None:
    while wire.recv(_CHUNK_BYTES):  # nothing but STOP is ever said
        telling.stop.set()
    os._exit(1)  # the worker is gone


def _train(question: Question, telling: Telling) -> None:
    import torch

    from fulcrum.datasets.stored import read_manifest
    from fulcrum.engine.residency import Residency
    from fulcrum.engine.sae_training import plan_training, run_training
    from fulcrum.science.sae.training.ranks import meeting_ranks
    from fulcrum.store.artifacts import open_artifacts

    torch.set_num_threads(question.n_threads)
    folder = Path(question.meeting)
    meeting = question.rank, question.size, question.device, folder / _MEETING
    with meeting_ranks(*meeting) as ranks, telling.failures():
        artifacts = open_artifacts(question.artifacts_url, Path(question.artifacts_cache))
        manifest = artifacts.read_bytes(question.manifest_sha256)
        dataset = read_manifest(manifest, question.dataset_name, artifacts.read_bytes)
        residency = Residency(str(ranks.device), getattr(torch, question.dtype))
        training = plan_training(residency.model(question.model), dataset, question.spec, question.model_name)
        if training.key != question.key:
            raise Conflict("the data set or the model was changed while the training began: start again")
        head = None
        if ranks.is_first and training.task is not None:
            head = residency.head(question.model, training.task)
        weights = run_training(
            training,
            head,
            Path(question.checkpoints),
            telling,
            question.checkpoint_every_s,
            Path(question.activations),
            question.activations_bytes,
            ranks,
        )
        if ranks.is_first and telling.stopped:
            telling.say(Done(None))
        elif ranks.is_first:
            (folder / _WEIGHTS).write_bytes(weights)
            telling.say(Done(str(folder / _WEIGHTS)))


def main() -> None:
    """Asked once, over the socket."""
    wire = socket.socket(fileno=int(sys.argv[1]))
    question = _asked(wire)
    if question is None:
        return
    configure_logging("worker", question.log_level)
    if question.gpus:  # the worker has narrowed them to its own; torch looks once
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(question.gpus)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no port that others could reach
    telling = Telling(wire, question)
    threading.Thread(target=_listen, args=(wire, telling), name="worker", daemon=True).start()
    with telling.failures():
        _train(question, telling)


if __name__ == "__main__":
    main()
