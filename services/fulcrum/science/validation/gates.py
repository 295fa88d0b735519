"""One question each, answered pass, fail or undecided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.errors import InvalidInput

State = Literal["pass", "fail", "undecided"]
Kind = Literal["precondition", "benefit", "harm"]


@dataclass(frozen=True)
class Gate:
    """The answer to one question and what it stands on.

    `low` and `high` are the bounds that were compared with `margin`; `needs_n` is the number of images of
    `population` which would decide, were the rates seen the true ones; None where decided or where images do
    not help.
    """

    name: str
    kind: Kind
    state: State
    reason: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    n: int = 0
    population: str = ""
    needs_n: int | None = None


def below(low: float, high: float, margin: float) -> State:
    """Pass when [low, high] is at or below the margin, fail when all of it is above, undecided astride."""
    return _decide(high <= margin, low > margin, low, high)


def above(low: float, high: float, margin: float) -> State:
    """Pass when [low, high] is at or above the margin, fail when all of it is below, undecided astride."""
    return _decide(low >= margin, high < margin, low, high)


def combine(gates: Sequence[Gate], kind: Kind) -> State:
    """All gates of a kind as one: fail if any fails, pass if all pass (also none), undecided otherwise.

    That all must pass needs no correction for their number (an intersection-union test, Berger 1982); that
    any may fail does, and families of groups compare their failing bounds at alpha over the size of the
    family.
    """
    states = {g.state for g in gates if g.kind == kind}
    if "fail" in states:
        return "fail"
    return "undecided" if "undecided" in states else "pass"


def _decide(passes: bool, fails: bool, low: float, high: float) -> State:
    if math.isnan(low) or math.isnan(high) or low > high:
        raise InvalidInput(f"bounds [{low}, {high}] are no interval")
    if passes:
        return "pass"
    return "fail" if fails else "undecided"
