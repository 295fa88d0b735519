"""What comes back from the service, read so that a malformed answer is never taken for the caller's fault."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fulcrum.domain.errors import FulcrumError, InternalError
from fulcrum.domain.provenance import Answered
from fulcrum.domain.results import Effect, FloatArray

T = TypeVar("T")


@dataclass(frozen=True)
class DosePoints:
    """Some points of a dose response, as soon as they are known."""

    gains: FloatArray  # (n,)
    logits: FloatArray  # (n, n_classes)
    target_values: FloatArray  # (n,)


@dataclass(frozen=True)
class MoveAnswer:
    """The outcome of one move of a steering session; an error concerns this move alone, the session goes on."""

    sequence: int
    outcome: Answered[Effect] | FulcrumError


def understood(read: Callable[..., T], *arguments: Any) -> T:
    """What `read(*arguments)` gives. Raises InternalError for an answer that cannot be read."""
    try:
        return read(*arguments)
    except FulcrumError as error:
        raise InternalError(f"the inference service's answer cannot be read: {error}") from error


def unfinished(method: str, message: Any = None) -> InternalError:
    """The error of a stream that ended before its last event."""
    return InternalError(
        f"the inference service ended {method} without its last event ({message!r} came last)"
    )
