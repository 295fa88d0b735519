"""Average precision and AUROC of many units at once, exact also where responses are equal.

`AP = mean over positives i of TP(>= s_i) / (TP(>= s_i) + FP(>= s_i))`: equal responses are one threshold, so the
order of examples says nothing, and a constant unit has the base rate. It is `average_precision_score` of sklearn, one
precision for each positive instead of one for each threshold.

Values alone are sorted (numpy does that with SIMD instructions, several times faster than an argsort), the positives
are looked up among the sorted others, and what is sorted once serves every concept that is compared with the same
examples. Units are worked on in pieces that stay in the processor's cache; pieces change no bit of the result.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.experts import Expertise

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1
_VALUES_PER_PIECE = 1 << 20


def average_precision(
    responses: Float[np.ndarray, "n_units n_examples"], labels: Bool[np.ndarray, " n_examples"]
) -> Float[np.ndarray, " n_units"]:
    """(n_units,) AP of every unit, float64.

    Raises InvalidInput when one class is missing, ComputationFailed for nan and infinity.
    """
    ap: NDArray[np.float64] = average_precisions(responses, np.asarray(labels)[None].astype(np.int8))[0]
    return ap


def average_precisions(
    responses: Float[np.ndarray, "n_units n_examples"], labels: Int[np.ndarray, "n_concepts n_examples"]
) -> Float[np.ndarray, "n_concepts n_units"]:
    """AP of every unit for every concept; `labels` are POSITIVE, NEGATIVE or UNUSED.

    Raises as `average_precision` does.
    """
    checked = check_labels(labels, responses.shape[1])
    ap = np.empty((len(checked), len(responses)))
    for units, concept, found in _ranked(responses, checked):
        ap[concept, units] = found.ap()
    return ap


def expertise(
    responses: Float[np.ndarray, "n_units n_examples"], labels: Int[np.ndarray, "n_concepts n_examples"]
) -> list[Expertise]:
    """Everything that is known of the units, concept by concept. Raises as `average_precision` does."""
    checked = check_labels(labels, responses.shape[1])
    shape = (len(checked), len(responses))
    ap, auroc, on_p50, on_p90, off_mean = (np.empty(shape) for _ in range(5))
    for units, concept, found in _ranked(responses, checked):
        ap[concept, units] = found.ap()
        auroc[concept, units] = found.auroc()
        on_p50[concept, units], on_p90[concept, units] = quantiles(found.positives, (0.5, 0.9))
        off_mean[concept, units] = found.off_mean()
    return [
        Expertise(
            ap[c], auroc[c], on_p50[c], on_p90[c], off_mean[c],
            n_pos=int((checked[c] == POSITIVE).sum()), n_neg=int((checked[c] == NEGATIVE).sum()),
        )
        for c in range(len(checked))
    ]  # fmt: skip


def quantiles(
    ascending: Float[np.ndarray, "n_units n"], qs: tuple[float, ...]
) -> Float[np.ndarray, "n_qs n_units"]:
    """Linear quantiles (as `numpy.quantile`) of rows that are sorted already."""
    rows = []
    for q in qs:
        place = q * (ascending.shape[1] - 1)
        low = int(place)
        high = min(low + 1, ascending.shape[1] - 1)
        a, b = ascending[:, low].astype(np.float64), ascending[:, high].astype(np.float64)
        rows.append(a + (b - a) * (place - low))
    return np.stack(rows)


def check_labels(labels: NDArray[Any], n_examples: int) -> Int[np.ndarray, "n_concepts n_examples"]:
    """Labels as int8. Raises InvalidInput for another shape, other values, or a concept with one class."""
    given = np.asarray(labels)
    if given.ndim != 2 or given.shape[1] != n_examples or not len(given):
        raise InvalidInput(
            f"labels must be (n_concepts, {n_examples}), one for each example, got {given.shape}"
        )
    if not np.isin(given, (POSITIVE, NEGATIVE, UNUSED)).all():
        raise InvalidInput(
            f"labels are {POSITIVE} (positive), {NEGATIVE} (negative) or {UNUSED} (unused), "
            f"got {np.unique(given)[:8].tolist()}"
        )
    for number, row in enumerate(given):
        n_pos, n_neg = int((row == POSITIVE).sum()), int((row == NEGATIVE).sum())
        if not n_pos or not n_neg:
            raise InvalidInput(
                f"concept {number} has {n_pos} positive and {n_neg} negative examples: it needs both"
            )
    return given.astype(np.int8)


class _Ranked:
    """One concept's sorted positives among the sorted others, for a piece of the units."""

    def __init__(
        self,
        positives: NDArray[Any],  # (n_units, n_pos) ascending
        reference: NDArray[Any],  # (n_units, n) ascending: the negatives, or all examples of the concept
        with_positives: bool,
        reference_sum: NDArray[np.float64] | None,
    ) -> None:
        self.positives = positives
        self._reference = reference
        self._with_positives = with_positives
        self._reference_sum = reference_sum
        self._n_neg = reference.shape[1] - (positives.shape[1] if with_positives else 0)
        self._below = np.empty(positives.shape, dtype=np.int64)  # of the reference, strictly below s_i
        # One call for each unit: needles ascend, so a row costs a few microseconds, and no index array of the
        # whole is made.
        for out, row, needles in zip(self._below, reference, positives, strict=True):
            out[:] = row.searchsorted(needles)
        self._rank = _first_of_equals(positives)

    def ap(self) -> NDArray[np.float64]:
        """(n_units,)"""
        true_positives = self.positives.shape[1] - self._rank
        selected = self._reference.shape[1] - self._below
        if not self._with_positives:
            selected = selected + true_positives
        mean: NDArray[np.float64] = (true_positives / selected).mean(axis=1)
        return mean

    def auroc(self) -> NDArray[np.float64]:
        """(n_units,) `P(s+ > s-) + P(s+ = s-) / 2`."""
        n, n_pos = self._reference.shape[1], self.positives.shape[1]
        equal = np.zeros(self._below.shape, dtype=np.int64)
        if self._with_positives:
            # A positive is always found beside itself: only what is more than its equals is a negative.
            tied = np.ones(len(self.positives), dtype=bool)
        else:
            rows = np.arange(len(self.positives))[:, None]
            found = self._reference[rows, np.minimum(self._below, n - 1)]
            tied = ((found == self.positives) & (self._below < n)).any(axis=1)
        for u in np.flatnonzero(tied):
            equal[u] = self._reference[u].searchsorted(self.positives[u], side="right") - self._below[u]
        below = self._below
        if self._with_positives:
            below = below - self._rank
            equal = equal - _count_of_equals(self._rank)
        wins = below.sum(axis=1) + 0.5 * equal.sum(axis=1)
        auroc: NDArray[np.float64] = wins / (n_pos * self._n_neg)
        return auroc

    def off_mean(self) -> NDArray[np.float64]:
        """(n_units,) mean over the negatives."""
        assert self._reference_sum is not None
        total = self._reference_sum
        if self._with_positives:
            total = total - self.positives.sum(axis=1, dtype=np.float64)
        mean: NDArray[np.float64] = total / self._n_neg
        return mean


def _ranked(responses: NDArray[Any], labels: NDArray[np.int8]) -> Iterator[tuple[slice, int, _Ranked]]:
    """Pieces of the units, and for each piece every concept."""
    if responses.dtype not in (np.float32, np.float64):
        responses = responses.astype(np.float32 if responses.dtype.itemsize == 2 else np.float64)
    groups = list(_groups(labels))
    n_units, n_examples = responses.shape
    step = max(1, _VALUES_PER_PIECE // max(1, n_examples))
    for start in range(0, n_units, step):
        units = slice(start, min(n_units, start + step))
        piece = responses[units]
        _check_finite(piece, start)
        for reference, with_positives, concepts in groups:
            others = np.compress(reference, piece, axis=1)
            total = others.sum(axis=1, dtype=np.float64)
            others.sort(axis=1)
            for concept in concepts:
                positives = np.compress(labels[concept] == POSITIVE, piece, axis=1)
                positives.sort(axis=1)
                yield units, concept, _Ranked(positives, others, with_positives, total)


def _groups(labels: NDArray[np.int8]) -> Iterator[tuple[NDArray[np.bool_], bool, list[int]]]:
    """Examples to sort once, whether they hold the positives too, and the concepts that they serve.

    Concepts share their negatives (one control set for all), or all their examples (each is the others' negative).
    """
    by_negatives: dict[bytes, list[int]] = {}
    by_examples: dict[bytes, list[int]] = {}
    for concept, row in enumerate(labels):
        by_negatives.setdefault((row == NEGATIVE).tobytes(), []).append(concept)
        by_examples.setdefault((row != UNUSED).tobytes(), []).append(concept)
    done: set[int] = set()
    for concepts in by_examples.values():
        alone = [c for c in concepts if len(by_negatives[(labels[c] == NEGATIVE).tobytes()]) == 1]
        if len(alone) > 1:
            done.update(alone)
            yield labels[alone[0]] != UNUSED, True, alone
    for concepts in by_negatives.values():
        left = [c for c in concepts if c not in done]
        if left:
            yield labels[left[0]] == NEGATIVE, False, left


def _first_of_equals(ascending: NDArray[Any]) -> NDArray[np.int64]:
    """For each value the number of values of its row that are strictly below it."""
    n = ascending.shape[1]
    rank = np.arange(n, dtype=np.int64)
    repeats = ascending[:, 1:] == ascending[:, :-1]
    if not repeats.any():
        return np.broadcast_to(rank, ascending.shape)
    first = np.broadcast_to(rank, ascending.shape).copy()
    first[:, 1:][repeats] = 0
    return np.maximum.accumulate(first, axis=1)


def _count_of_equals(rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value how many of its row equal it, itself included."""
    n = rank.shape[1]
    # From the far end, "the last of equals" is the first rank of the next group.
    after = np.full(rank.shape, n, dtype=np.int64)
    new = rank[:, 1:] != rank[:, :-1]
    after[:, :-1][new] = rank[:, 1:][new]
    return np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1] - rank


def _check_finite(piece: NDArray[Any], start: int) -> None:
    # A sum is not finite if a term is not (or if it overflows, which the second look tells): one pass, no mask.
    with np.errstate(invalid="ignore", over="ignore"):
        sums = piece.sum(axis=1)
    if not np.isfinite(sums).all() and not np.isfinite(piece).all():
        units = np.flatnonzero(~np.isfinite(piece).all(axis=1)) + start
        raise ComputationFailed(
            f"responses of {len(units)} units hold nan or infinity, the first is unit {units[0]}"
        )
