"""What a worker and the processes that train for it tell each other: one JSON object a line, over a socket of each.

A process is asked once (`Question`). Afterwards it hears nothing but `STOP`, or the end of the line, which means that
its worker is gone.
"""

import json
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.jobs import TrainSae
from fulcrum.domain.models import ModelRef

STOP = b"stop\n"  # to the first: end with a checkpoint


@dataclass(frozen=True)
class Question:
    """What to train and where everything is. Of a database a process knows nothing."""

    rank: int
    size: int
    key: str  # of the training that the worker has planned
    spec: TrainSae
    model: ModelRef  # as the engine loads it
    model_name: str
    dataset_name: str
    manifest_sha256: str
    artifacts_url: str
    artifacts_cache: str
    activations: str
    activations_bytes: int
    checkpoints: str
    checkpoint_every_s: float
    meeting: str  # a folder of this attempt: all meet in it, the first leaves the weights in it
    device: str  # cpu, or cuda for the GPU of its rank
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them; none: all that there are
    dtype: str
    n_threads: int
    log_level: str


@dataclass(frozen=True)
class Read:
    """So many more activations were read."""

    n_tokens: int
    kind: Literal["read"] = "read"


@dataclass(frozen=True)
class Step:
    """So many steps are done; not each of them is told."""

    n_steps: int
    n_steps_in_all: int
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written on the way."""

    kind: Literal["saved"] = "saved"


@dataclass(frozen=True)
class Point:
    """Of the curves."""

    values: dict[str, float]
    kind: Literal["point"] = "point"


@dataclass(frozen=True)
class Note:
    """Words for people."""

    text: str
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Done:
    """The training has ended; `weights` is a file, None where it was told to stop."""

    weights: str | None
    kind: Literal["done"] = "done"


@dataclass(frozen=True)
class Failed:
    """What ended it: a domain error by its reason, or `OS_ERROR`."""

    reason: str
    text: str
    retry_after_s: float | None = None
    kind: Literal["failed"] = "failed"


OS_ERROR = "OS_ERROR"  # of a disk that is full: no domain error, and may work later

Said = Read | Step | Saved | Point | Note | Done | Failed


@dataclass(frozen=True)
class _Line:
    said: Said


def line_of(value: Question | Said) -> bytes:
    """One line. Raises ComputationFailed for a number that is not finite."""
    return json.dumps(to_json(value), separators=(",", ":")).encode() + b"\n"


def question_of(line: bytes) -> Question:
    """What `line_of` wrote."""
    return from_json(Question, json.loads(line))


def said_in(line: bytes) -> Said:
    """What `line_of` wrote."""
    return from_json(_Line, {"said": json.loads(line)}).said
