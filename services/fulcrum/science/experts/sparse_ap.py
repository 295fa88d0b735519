"""AP and AUROC where most responses are zero: the zeros of a unit are one tie group, counted and never stored."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.experts import Expertise
from fulcrum.science.experts.ap import NEGATIVE, POSITIVE, check_labels
from fulcrum.science.experts.moments import Sums


@dataclass(frozen=True, eq=False)
class SparseResponses:
    """What is not zero of `(n_units, n_examples)` float32 responses, sorted once for every concept.

    Entries ascend by unit, and within a unit fall by value; unit u owns `starts[u]:starts[u+1]`.
    """

    starts: Int[np.ndarray, " n_units_plus_1"]
    examples: Int[np.ndarray, " n_entries"]
    values: Float[np.ndarray, " n_entries"]
    n_examples: int

    @classmethod
    def create(
        cls,
        units: Int[np.ndarray, " n_entries"],
        examples: Int[np.ndarray, " n_entries"],
        values: Float[np.ndarray, " n_entries"],
        n_units: int,
        n_examples: int,
    ) -> "SparseResponses":
        """From entries in any order; stored zeros are left out.

        Raises InvalidInput for numbers out of range or an example twice in a unit, ComputationFailed for nan.
        """
        values = np.asarray(values, dtype=np.float32)
        if not len(units) == len(examples) == len(values):
            raise InvalidInput(
                f"{len(units)} units, {len(examples)} examples and {len(values)} values: one of each per entry"
            )
        if not np.isfinite(values).all():
            raise ComputationFailed(f"{int((~np.isfinite(values)).sum())} responses are nan or infinity")
        kept = values != 0
        unit, example = np.asarray(units, np.int64)[kept], np.asarray(examples, np.int64)[kept]
        values = values[kept]
        for name, numbers, n in (("unit", unit, n_units), ("example", example, n_examples)):
            if len(numbers) and not (numbers.min() >= 0 and numbers.max() < n):
                raise InvalidInput(f"{name}s {numbers.min()} .. {numbers.max()} do not lie in 0 .. {n - 1}")
        if (np.diff(np.sort(unit * n_examples + example)) == 0).any():
            raise InvalidInput("an example occurs twice in a unit")
        bits = values.view(np.int32)
        # Two's complement in the order of the floats; inverted, so that an ascending sort has the largest first.
        falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF)) ^ np.int32(-(2**31))
        order = np.argsort((unit.astype(np.uint64) << np.uint64(32)) | falling.view(np.uint32))
        starts = np.concatenate([[0], np.cumsum(np.bincount(unit, minlength=n_units))])
        return cls(starts, example[order], values[order], n_examples)

    @property
    def n_units(self) -> int:
        """Number of units, silent ones included."""
        return len(self.starts) - 1

    def rows(self, units: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n n_examples"]:
        """Chosen units, zeros included."""
        dense = np.zeros((len(units), self.n_examples), dtype=np.float32)
        for row, unit in enumerate(units.tolist()):
            entries = slice(self.starts[unit], self.starts[unit + 1])
            dense[row, self.examples[entries]] = self.values[entries]
        return dense


def sparse_expertise(
    responses: SparseResponses, labels: Int[np.ndarray, "n_concepts n_examples"]
) -> list[Expertise]:
    """As `ap.expertise`, concept by concept; the sorting is already done. Raises InvalidInput for one class."""
    return [_expertise(responses, row) for row in check_labels(labels, responses.n_examples)]


def sparse_average_precision(
    responses: SparseResponses, labels: Int[np.ndarray, "n_concepts n_examples"]
) -> Float[np.ndarray, "n_concepts n_units"]:
    """AP alone."""
    return np.stack([e.ap for e in sparse_expertise(responses, labels)])


def _expertise(responses: SparseResponses, labels: NDArray[np.int8]) -> Expertise:
    n_pos, n_neg = int((labels == POSITIVE).sum()), int((labels == NEGATIVE).sum())
    n_units, starts, values = responses.n_units, responses.starts, responses.values
    positive = labels[responses.examples] == POSITIVE
    negative = labels[responses.examples] == NEGATIVE
    unit = np.repeat(np.arange(n_units), np.diff(starts))

    tp_all, fp_all = _running(positive), _running(negative)
    active_pos, active_neg = (np.diff(c[starts]) for c in (tp_all, fp_all))
    zero_pos, zero_neg = n_pos - active_pos, n_neg - active_neg
    above = np.concatenate([[0], np.cumsum(values > 0)])[starts]
    n_above = np.diff(above)
    tp_above = tp_all[starts[:-1] + n_above] - tp_all[starts[:-1]]
    fp_above = fp_all[starts[:-1] + n_above] - fp_all[starts[:-1]]

    # A threshold is the last entry of its run of equal values.
    is_end = np.ones(len(values), dtype=bool)
    is_end[:-1] = (unit[1:] != unit[:-1]) | (values[1:] != values[:-1])
    ends = np.flatnonzero(is_end)
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    owner = unit[ends]
    below_zero = values[ends] < 0
    d_tp, d_fp = tp_all[ends + 1] - tp_all[begins], fp_all[ends + 1] - fp_all[begins]
    tp = tp_all[ends + 1] - tp_all[starts[owner]] + np.where(below_zero, zero_pos[owner], 0)
    fp = fp_all[ends + 1] - fp_all[starts[owner]] + np.where(below_zero, zero_neg[owner], 0)
    gain = d_tp * (tp / np.maximum(tp + fp, 1))  # a run of unused examples alone has no positives to weigh
    tp_zero, fp_zero = tp_above + zero_pos, fp_above + zero_neg
    ap = np.bincount(owner, gain, n_units) + zero_pos * (tp_zero / np.maximum(tp_zero + fp_zero, 1))
    wins = np.bincount(owner, d_tp * (n_neg - fp + 0.5 * d_fp), n_units)
    wins = wins + zero_pos * (n_neg - fp_zero + 0.5 * zero_neg)

    on = _sums(unit[positive], values[positive], n_units, n_pos)
    off = _sums(unit[negative], values[negative], n_units, n_neg)
    (on_mean, on_sd), (off_mean, off_sd) = on.mean_and_sd(), off.mean_and_sd()
    p50, p90 = (_quantile(values[positive], active_pos, tp_above, zero_pos, q, n_pos) for q in (0.5, 0.9))
    return Expertise(
        ap / n_pos, wins / (n_pos * n_neg), p50, p90, off_mean, on_mean, on_sd, off_sd, n_pos=n_pos, n_neg=n_neg
    )  # fmt: skip


def _sums(unit: NDArray[np.int64], values: NDArray[np.float32], n_units: int, n: int) -> Sums:
    """The zeros add nothing but their number."""
    wide = values.astype(np.float64)
    # Of no entries at all numpy counts in whole numbers.
    total, squares = (np.bincount(unit, w, n_units).astype(np.float64) for w in (wide, wide * wide))
    return Sums(n, total, squares, squares)


def _running(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])


def _quantile(
    falling: NDArray[np.float32],
    n_active: NDArray[np.int64],
    n_above: NDArray[np.int64],
    n_zero: NDArray[np.int64],
    q: float,
    n_pos: int,
) -> NDArray[np.float64]:
    """Linear quantile over a unit's positive examples: negatives, then zeros, then what is above."""
    starts = np.concatenate([[0], np.cumsum(n_active)])[:-1]
    padded = np.append(falling, np.float32(0))

    def ranked(k: int) -> NDArray[np.float64]:
        place = n_pos - 1 - k  # from the top
        is_zero = (place >= n_above) & (place < n_above + n_zero)
        entry = starts + np.where(place < n_above, place, place - n_zero)
        return padded[np.where(is_zero, len(falling), entry)].astype(np.float64)

    position = q * (n_pos - 1)
    low = int(position)
    a, b = ranked(low), ranked(min(low + 1, n_pos - 1))
    quantile: NDArray[np.float64] = a + (b - a) * (position - low)
    return quantile
