"""How much of a correction: dose-response with its first harm crossing, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import check_length


@dataclass(frozen=True)
class Dose:
    """One gain, judged on the failure mode (`fix_rate`), on all images, and on the worst group."""

    gain: float
    fix_rate: float
    nfr: float
    nfr_upper: float
    worst_group_accuracy: float | None
    kl_p95: float


@dataclass(frozen=True)
class DoseCurve:
    """Doses from the gain nearest 1 (no edit) outwards.

    `first_harm` is the first dose whose NFR bound exceeds the margin, None if none does. `chosen` fixes most
    among the doses before it (the weaker of equal ones); None if already the weakest dose harms. Choose it on
    select: a dose is one more thing that was tried.
    """

    doses: tuple[Dose, ...]
    harm_margin: float
    first_harm: Dose | None
    chosen: Dose | None


def dose_curve(doses: Sequence[Dose], harm_margin: float = 0.01) -> DoseCurve:
    """Orders one direction of gains and marks harm; InvalidInput for none, or gains on both sides of 1."""
    if not doses:
        raise InvalidInput("a dose curve of no doses: at least one is needed")
    gains = [d.gain for d in doses]
    if min(gains) < 1 < max(gains):
        raise InvalidInput(
            f"gains {min(gains)} .. {max(gains)} lie on both sides of 1: give each direction its curve"
        )
    ordered = tuple(sorted(doses, key=lambda d: abs(d.gain - 1)))
    harmful = [i for i, d in enumerate(ordered) if d.nfr_upper > harm_margin]
    safe = ordered[: harmful[0]] if harmful else ordered
    return DoseCurve(
        doses=ordered,
        harm_margin=harm_margin,
        first_harm=ordered[harmful[0]] if harmful else None,
        chosen=max(safe, key=lambda d: d.fix_rate, default=None),
    )


def pareto_front(benefit: Float[np.ndarray, " m"], cost: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Which points no other beats: none has at least the benefit at no more cost, and one of both better."""
    check_length("cost", cost, len(benefit))
    order = np.lexsort((cost, -benefit))
    front = np.zeros(len(benefit), dtype=np.bool_)
    cheapest = np.inf
    best: float | None = None
    for i in order:
        equal = best is not None and benefit[i] == best and cost[i] == cheapest
        if cost[i] < cheapest or equal:
            front[i] = True
            cheapest, best = cost[i], float(benefit[i])
    return front
