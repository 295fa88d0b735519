"""What is known about how well units tell a concept: arrays over units, and the examples they come from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Expertise:
    """Each unit as a detector of one concept, from `n_pos` examples of it and `n_neg` others.

    `ap` and `auroc` lie in [0, 1]; a unit that says the same of every example has the base rate and 0.5. `on_p50`
    and `on_p90` are quantiles of the responses to the positive examples, `off_mean` the mean over the others.
    """

    ap: NDArray[np.float64]  # (n_units,)
    auroc: NDArray[np.float64]
    on_p50: NDArray[np.float64]
    on_p90: NDArray[np.float64]
    off_mean: NDArray[np.float64]
    n_pos: int
    n_neg: int

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.ap)

    @property
    def base_rate(self) -> float:
        """Share of positive examples: the AP of a unit that knows nothing."""
        return self.n_pos / (self.n_pos + self.n_neg)

    @classmethod
    def joined(cls, parts: "list[Expertise]") -> "Expertise":
        """The units of several layers, one after another. Raises InvalidInput across base rates."""
        if not parts:
            raise InvalidInput("there is no layer to join")
        require_one_base_rate(parts)
        names = ("ap", "auroc", "on_p50", "on_p90", "off_mean")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in names
        }
        return cls(**arrays, n_pos=parts[0].n_pos, n_neg=parts[0].n_neg)


def require_one_base_rate(many: "list[Expertise]") -> None:
    """Raises InvalidInput where numbers of examples differ in their share of positives.

    AP depends on the base rate, and a threshold on AP with it: 0.5 finds the experts among 400 of 1400 examples and
    none among 80 of 2580. The best `k` by AP can be compared all the same.
    """
    # Whole numbers, so that 400 : 1000 equals 200 : 500 whatever a division rounds to.
    first = many[0]
    for other in many[1:]:
        if first.n_pos * other.n_neg != other.n_pos * first.n_neg:
            raise InvalidInput(
                f"AP cannot be compared across base rates: {first.n_pos} positive and {first.n_neg} negative examples "
                f"({first.base_rate:.3f}) against {other.n_pos} and {other.n_neg} ({other.base_rate:.3f}); "
                "use as many of each, or the best k units by AP"
            )
