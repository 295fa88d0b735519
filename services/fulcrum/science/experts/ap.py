"""Average precision and AUROC of many units at once, exact also where responses are equal.

`AP = mean over positives i of TP(>= s_i) / (TP(>= s_i) + FP(>= s_i))`: equal responses are one threshold, so the
order of examples says nothing, and a constant unit has the base rate. It is `average_precision_score` of sklearn, one
precision for each positive instead of one for each threshold.

Values alone are sorted (numpy does that with SIMD instructions, several times faster than an argsort), the positives
are merged with the sorted others (`merging.py`), and what is sorted once serves every concept that is compared with the
same examples. Units are worked on in pieces that stay in the processor's cache; pieces change no bit of the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.experts import EXPERTISE_ARRAYS, Expertise
from fulcrum.science.experts.merging import columns_with_end, standing
from fulcrum.science.experts.moments import Sums, sums_of

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
        ap[concept, units] = found.ap
    return ap


def expertise(
    responses: Float[np.ndarray, "n_units n_examples"], labels: Int[np.ndarray, "n_concepts n_examples"]
) -> list[Expertise]:
    """Everything that is known of the units, concept by concept. Raises as `average_precision` does."""
    checked = check_labels(labels, responses.shape[1])
    shape = (len(checked), len(responses))
    of = {name: np.empty(shape) for name in EXPERTISE_ARRAYS}
    for units, concept, found in _ranked(responses, checked):
        place = concept, units
        of["ap"][place], of["auroc"][place] = found.ap, found.auroc
        of["on_p50"][place], of["on_p90"][place] = quantiles(found.positives, (0.5, 0.9))
        of["on_mean"][place], of["on_sd"][place] = found.on.mean_and_sd()
        of["off_mean"][place], of["off_sd"][place] = found.off.mean_and_sd()
    return [
        Expertise(
            **{name: values[c] for name, values in of.items()},
            n_pos=int((checked[c] == POSITIVE).sum()),
            n_neg=int((checked[c] == NEGATIVE).sum()),
        )
        for c in range(len(checked))
    ]


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


@dataclass(frozen=True)
class _Reference:
    """What several concepts are compared with: the negatives, or all examples, of a piece of the units."""

    ascending: NDArray[Any]  # (n_units, n + 1), infinity at the end

    @cached_property
    def sums(self) -> Sums:
        """Of each unit."""
        return sums_of(self.ascending[:, :-1])


class _Ranked:
    """One concept's sorted positives among the sorted others, for a piece of the units."""

    def __init__(
        self,
        positives: NDArray[Any],  # (n_units, n_pos + 1) ascending, infinity at the end
        reference: "_Reference",
        with_positives: bool,
    ) -> None:
        self.ap, self.auroc = standing(positives, reference.ascending, with_positives)
        self.positives = positives[:, :-1]
        self._reference = reference
        self._with_positives = with_positives

    @cached_property
    def on(self) -> Sums:
        """Of the positives."""
        return sums_of(self.positives)

    @property
    def off(self) -> Sums:
        """Of the negatives."""
        return self._reference.sums.without(self.on) if self._with_positives else self._reference.sums


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
            others = columns_with_end(piece, np.flatnonzero(reference))
            others[:, :-1].sort(axis=1)
            compared = _Reference(others)
            for concept in concepts:
                positives = columns_with_end(piece, np.flatnonzero(labels[concept] == POSITIVE))
                positives[:, :-1].sort(axis=1)
                yield units, concept, _Ranked(positives, compared, with_positives)


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


def _check_finite(piece: NDArray[Any], start: int) -> None:
    # A sum is not finite if a term is not (or if it overflows, which the second look tells): one pass, no mask.
    with np.errstate(invalid="ignore", over="ignore"):
        sums = piece.sum(axis=1)
    if not np.isfinite(sums).all() and not np.isfinite(piece).all():
        units = np.flatnonzero(~np.isfinite(piece).all(axis=1)) + start
        raise ComputationFailed(
            f"responses of {len(units)} units hold nan or infinity, the first is unit {units[0]}"
        )
