"""Means and standard deviations of many units, from sums that can be taken from one another."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# What is left of squares that cancel: a unit whose spread is 1e-5 of its size counts as constant. A float32 of that
# size knows its value to 6e-8, and a sum over 1e6 of them its squares to 1e-10.
_CANCELLED: Final = 1e-10


@dataclass(frozen=True, eq=False)
class Sums:
    """Of the responses of each unit to `n` examples, in float64. `size` is the sum of squares that rounding is of."""

    n: int
    values: NDArray[np.float64]  # (n_units,)
    squares: NDArray[np.float64]
    size: NDArray[np.float64]

    def without(self, some: "Sums") -> "Sums":
        """Those of the other examples."""
        return Sums(self.n - some.n, self.values - some.values, self.squares - some.squares, self.size)

    def mean_and_sd(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n_units,) each; the standard deviation is that of all examples, not an estimate from a sample."""
        mean = self.values / self.n
        squares = self.squares - self.n * mean * mean
        squares = np.where(squares > _CANCELLED * self.size, squares, 0.0)
        return mean, np.sqrt(squares / self.n)


def sums_of(rows: NDArray[Any]) -> Sums:
    """Of `(n_units, n)` responses."""
    values: NDArray[np.float64] = rows.sum(axis=1, dtype=np.float64)
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return Sums(rows.shape[1], values, squares, squares)
