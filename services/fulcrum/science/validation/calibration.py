"""Whether the corrected model still knows how sure it is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import UNLABELLED
from fulcrum.science.validation.bootstrap import Statistic
from fulcrum.science.validation.intervals import Interval

ROWS_PER_CHUNK = 8192


@dataclass(frozen=True)
class CalibrationScore:
    """One score before and after, with the interval of the paired difference (bootstrap).

    Smaller is better.
    """

    name: str
    before: float
    after: float
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Calibration:
    """Scores of the probabilities over the class set.

    `ece` is None below `ece_min_images` images, where it is noise.
    """

    n: int
    brier: CalibrationScore
    log_loss: CalibrationScore
    ece: CalibrationScore | None
    ece_bins: int
    ece_min_images: int


@dataclass(frozen=True)
class ProbabilityColumns:
    """Per image: probability of the answer, `-log p(label)` and Brier score.

    The last two are nan where unlabelled.
    """

    confidence: Float[np.ndarray, " n"]
    log_loss: Float[np.ndarray, " n"]
    brier: Float[np.ndarray, " n"]


def probability_columns(
    logits: Float[np.ndarray, "n n_classes"], labels: Int[np.ndarray, " n"], temperature: float
) -> ProbabilityColumns:
    """Scores of `softmax(logits / temperature)`; Brier is `sum_k (p_k - [k = label])^2`, in [0, 2]."""
    n = len(logits)
    confidence, log_loss, brier = np.empty(n), np.full(n, np.nan), np.full(n, np.nan)
    for start in range(0, n, ROWS_PER_CHUNK):
        part = slice(start, start + ROWS_PER_CHUNK)
        log_p = special.log_softmax(logits[part] / temperature, axis=1)
        p = np.exp(log_p)
        known = labels[part] != UNLABELLED
        rows = np.arange(len(p))
        at_label = np.where(known, labels[part], 0)
        confidence[part] = p.max(axis=1)
        log_loss[part] = np.where(known, -log_p[rows, at_label], np.nan)
        # sum_k p_k^2 - 2 p_label + 1
        brier[part] = np.where(known, (p * p).sum(axis=1) - 2 * p[rows, at_label] + 1, np.nan)
    return ProbabilityColumns(confidence, log_loss, brier)


def ece_of(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    n_bins: int = 15,
    among: Bool[np.ndarray, " n"] | None = None,
) -> Statistic:
    """Statistic: the expected calibration error in equal-mass bins.

    `sum_b |sum_{i in b} (right_i - confidence_i)| / n`. Bins are cut anew in every resample, at equal shares
    of its mass; an image goes whole into the bin of its middle. Of equal confidences the wrong ones come
    first, so that the order of the images does not matter.
    """
    chosen = np.arange(len(confidence)) if among is None else np.flatnonzero(among)
    if len(chosen) < n_bins:
        raise InvalidInput(f"{n_bins} equal-mass bins need at least as many images, got {len(chosen)}")
    order = chosen[np.lexsort((right[chosen], confidence[chosen]))]
    gap = right[order].astype(np.float64) - confidence[order]

    m = len(order)

    def statistic(weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b k"]:
        drawn = np.take(weights, order, axis=1)
        mass = np.cumsum(drawn, axis=1)
        ece = np.full((len(drawn), 1), np.nan)
        for row in np.flatnonzero(mass[:, -1] > 0):
            edges = mass[row, -1] * np.arange(1, n_bins) / n_bins
            at = np.searchsorted(mass[row], edges, side="left")
            # The image that reaches an edge is past it when its middle is.
            cuts = np.concatenate([[0], at + (mass[row, at] - drawn[row, at] / 2 < edges), [m]])
            sums = np.add.reduceat(drawn[row] * gap, np.minimum(cuts[:-1], m - 1))
            # reduceat gives a single element for an empty bin.
            ece[row] = np.abs(np.where(cuts[:-1] < cuts[1:], sums, 0.0)).sum() / mass[row, -1]
        return ece

    return statistic
