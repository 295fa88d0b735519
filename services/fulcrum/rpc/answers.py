"""What streams bring beside the domain's results."""

from dataclasses import dataclass

from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.provenance import Answered
from fulcrum.domain.results import Effect, FloatArray


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
