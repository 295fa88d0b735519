"""Which answers turned into which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from fulcrum.science.validation.arrays import UNLABELLED


@dataclass(frozen=True)
class ChangedPair:
    """`n` images whose answer went from `before` to `after`; how many of them that fixed and broke."""

    before: str
    after: str
    n: int
    fixed: int
    broken: int


def confusion(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], n_classes: int
) -> Int[np.ndarray, "n_classes n_classes"]:
    """Counts by label (row) and prediction (column) of the labelled images."""
    known = labels != UNLABELLED
    flat = np.bincount(labels[known] * n_classes + predicted[known], minlength=n_classes**2)
    return np.asarray(flat.reshape(n_classes, n_classes), dtype=np.int64)


def confusion_delta(
    labels: Int[np.ndarray, " n"],
    base: Int[np.ndarray, " n"],
    corrected: Int[np.ndarray, " n"],
    n_classes: int,
) -> Int[np.ndarray, "n_classes n_classes"]:
    """Corrected minus base confusion; rows sum to 0, because an image keeps its label."""
    after = confusion(labels, corrected, n_classes)
    return np.asarray(after - confusion(labels, base, n_classes), dtype=np.int64)


def changed_pairs(
    labels: Int[np.ndarray, " n"],
    base: Int[np.ndarray, " n"],
    corrected: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    most: int = 50,
) -> tuple[ChangedPair, ...]:
    """The most frequent changes of answer: what is shown for long lists of classes."""
    n_classes = len(class_names)
    moved = base != corrected
    codes = base[moved] * n_classes + corrected[moved]
    pairs, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    fixed = np.bincount(places, weights=corrected[moved] == labels[moved], minlength=len(pairs))
    broken = np.bincount(places, weights=base[moved] == labels[moved], minlength=len(pairs))
    order = np.lexsort((pairs, -counts))[:most]
    return tuple(
        ChangedPair(
            before=class_names[int(pairs[i]) // n_classes],
            after=class_names[int(pairs[i]) % n_classes],
            n=int(counts[i]),
            fixed=int(fixed[i]),
            broken=int(broken[i]),
        )
        for i in order
    )
