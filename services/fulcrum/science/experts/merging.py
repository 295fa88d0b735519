"""Two sorted lists for each unit walked through together: how the positives stand among the others. Compiled by numba.

numpy has no such walk for many rows; a `searchsorted` for each of them takes three times as long, because the processor
guesses half of its comparisons wrongly. Here nothing is guessed: every step advances one of two places by the result
of a comparison, and four units are walked through at once so that none waits for the other's memory.
"""

from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray


def columns_with_end(piece: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    """(n_units, n + 1) the values of some columns, and infinity as the end of every row. Values must be finite."""
    taken = np.empty((len(piece), len(columns) + 1), dtype=piece.dtype)
    _take(piece, columns, taken)
    return taken


def standing(
    positives: NDArray[Any], reference: NDArray[Any], with_positives: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n_units,) AP and AUROC. Rows ascend and end with infinity, as `columns_with_end` makes them.

    `reference` are the negatives, or the negatives and the positives together (`with_positives`).
    """
    ap, auroc = np.empty(len(positives)), np.empty(len(positives))
    _stand(positives, reference, with_positives, ap, auroc)
    return ap, auroc


@no_type_check  # numba finds the types, and takes a function as it is written
@njit(nogil=True)
def _take(piece, columns, taken):
    n = len(columns)
    for unit in range(len(piece)):
        for place in range(n):
            taken[unit, place] = piece[unit, columns[place]]
        taken[unit, n] = np.inf


@no_type_check
@njit(nogil=True)
def _stand(positives, reference, with_positives, ap, auroc):
    n_units = len(positives)
    n_pos, n = positives.shape[1] - 1, reference.shape[1] - 1
    n_neg = n - n_pos if with_positives else n
    # below[x, i]: how many of the reference are strictly below positive i; one place for the step past the last.
    below = np.empty((4, n_pos + 1), dtype=np.int64)
    for start in range(0, n_units, 4):
        # Past the last unit the last one is walked through again.
        u0, u1 = start, min(start + 1, n_units - 1)
        u2, u3 = min(start + 2, n_units - 1), min(start + 3, n_units - 1)
        i0 = i1 = i2 = i3 = 0
        k0 = k1 = k2 = k3 = 0
        # Each step passes one value of one of the two rows. Infinity is below nothing and above everything else: after
        # n + n_pos steps both places are at their ends and never beyond.
        for _ in range(n + n_pos):
            below[0, i0], below[1, i1], below[2, i2], below[3, i3] = k0, k1, k2, k3
            passed0 = reference[u0, k0] < positives[u0, i0]
            passed1 = reference[u1, k1] < positives[u1, i1]
            passed2 = reference[u2, k2] < positives[u2, i2]
            passed3 = reference[u3, k3] < positives[u3, i3]
            k0 += passed0
            k1 += passed1
            k2 += passed2
            k3 += passed3
            i0 += not passed0
            i1 += not passed1
            i2 += not passed2
            i3 += not passed3
        for x in range(min(4, n_units - start)):
            unit = start + x
            precisions = wins = 0.0
            first = 0
            while first < n_pos:  # a group of equal positives at a time
                value = positives[unit, first]
                last = first + 1
                while positives[unit, last] == value:  # the end equals nothing
                    last += 1
                lower = below[x, first]
                upper = lower
                while reference[unit, upper] == value:
                    upper += 1
                n_equal, above = last - first, n - lower
                true_positives = n_pos - first
                if with_positives:
                    selected = above
                    won, tied = lower - first, upper - lower - n_equal
                else:
                    selected = above + true_positives
                    won, tied = lower, upper - lower
                precisions += n_equal * (true_positives / selected)
                wins += n_equal * (won + 0.5 * tied)
                first = last
            ap[unit] = precisions / n_pos
            auroc[unit] = wins / (n_pos * n_neg)
