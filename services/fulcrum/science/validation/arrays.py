"""Checks where arrays enter the validation; behind them the values are trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import (
    ComputationFailed,
    DatasetWithoutLabels,
    InvalidDataset,
    InvalidInput,
    InvalidSettings,
    SingleClassDataset,
)

UNLABELLED = -1


def check_logits(name: str, logits: NDArray[Any]) -> Float[np.ndarray, "n n_classes"]:
    """`logits` as float64.

    Raises InvalidInput for a wrong shape and ComputationFailed for nan or infinity.
    """
    values = np.asarray(logits)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise InvalidInput(
            f"{name} must be a float array of shape (n images, n classes), got {values.dtype} {values.shape}"
        )
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ComputationFailed(
            f"{name} hold nan or infinity in {len(rows)} rows, the first is row {rows[0]}"
        )
    return values.astype(np.float64, copy=False)


def check_length(name: str, values: Sequence[Any] | NDArray[Any], n: int) -> None:
    """Raises InvalidInput unless there is one value per image."""
    if len(values) != n:
        raise InvalidInput(f"{name} has {len(values)} values for {n} images: it must have one for each")


def check_classes(name: str, values: NDArray[Any], n_classes: int, lowest: int = 0) -> Int[np.ndarray, " n"]:
    """Class numbers as int64.

    Raises InvalidDataset outside `lowest .. n_classes-1` or when they are not whole.
    """
    classes = np.asarray(values)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise InvalidDataset(
            f"{name} must be whole class numbers of shape (n,), got {classes.dtype} {classes.shape}"
        )
    outside = np.flatnonzero((classes < lowest) | (classes >= n_classes))
    if len(outside):
        raise InvalidDataset(
            f"{name} of image {outside[0]} is {classes[outside[0]]}: "
            f"the class set has the classes 0 .. {n_classes - 1}"
            + (f", and {UNLABELLED} stands for no label" if lowest == UNLABELLED else "")
        )
    return classes.astype(np.int64, copy=False)


def check_labels(labels: NDArray[Any] | None, n: int, n_classes: int) -> Int[np.ndarray, " n"]:
    """Labels as int64, UNLABELLED where there is none; at least two classes among them.

    With one class "answer this class always" fixes everything and breaks nothing, so no verdict can be right.
    Raises DatasetWithoutLabels, SingleClassDataset, InvalidDataset or InvalidInput.
    """
    if labels is None:
        raise DatasetWithoutLabels(
            "fixed and broken need labels and there are none; only changed can be counted"
        )
    check_length("labels", labels, n)
    classes = check_classes("labels", labels, n_classes, lowest=UNLABELLED)
    present = np.unique(classes[classes != UNLABELLED])
    if len(present) == 0:
        raise DatasetWithoutLabels(f"all {n} images are unlabelled; only changed can be counted")
    if len(present) == 1:
        raise SingleClassDataset(
            f"every labelled image is of class {present[0]}: what a correction does to others cannot be seen"
        )
    return classes


def check_mask(name: str, mask: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """A boolean mask of one value per image. Raises InvalidInput."""
    check_length(name, mask, n)
    values = np.asarray(mask)
    if values.dtype != np.bool_ or values.ndim != 1:
        raise InvalidInput(
            f"{name} must be a boolean array of shape ({n},), got {values.dtype} {values.shape}"
        )
    return values


def check_share(name: str, value: float) -> float:
    """A number strictly between 0 and 1. Raises InvalidSettings."""
    if not 0.0 < value < 1.0:
        raise InvalidSettings(f"{name}={value} must lie between 0 and 1")
    return float(value)


def check_counts(**counts: int) -> None:
    """Raises InvalidInput for a negative count."""
    for name, value in counts.items():
        if value < 0:
            raise InvalidInput(f"{name}={value}: a count cannot be negative")
