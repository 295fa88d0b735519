"""Splits that keep together what belongs together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.hygiene.inspection import inspect_dataset
from fulcrum.datasets.hygiene.near_duplicates import merge
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidSettings

# Metadata key under which crops name the image they were cut from.
PARENT_IMAGE: Final = "parent_image"


def assign_splits(
    dataset: Dataset,
    fractions: Mapping[str, float],
    seed: int = 0,
    *,
    clusters: NDArray[np.integer[Any]] | None = None,
    stratify_by: Sequence[str] = (),
) -> Dataset:
    """The data set with new splits, stratified by label (and the groups in `stratify_by`).

    Duplicate clusters, pair_ids and crops of one image stay in one split, so shares are met as well as these
    allow. `clusters` is that of a HygieneReport; None inspects the images first. The same seed gives the same
    splits, whatever order the samples were listed in. Raises InvalidSettings for fractions that are not > 0
    and do not sum to 1.
    """
    names = sorted(fractions)
    shares = np.array([fractions[n] for n in names], dtype=np.float64)
    if not names or np.any(~(shares > 0)) or abs(shares.sum() - 1) > 1e-9:
        raise InvalidSettings(f"fractions must be > 0 and sum to 1, got {dict(fractions)}")
    for group in stratify_by:
        if group not in dataset.groups:
            raise InvalidSettings(f"no group {group!r} to stratify by: there is {sorted(dataset.groups)}")
    labels = inspect_dataset(dataset).clusters if clusters is None else np.asarray(clusters, dtype=np.int64)
    if labels.shape != (len(dataset),):
        raise InvalidSettings(f"clusters must be ({len(dataset)},), got {labels.shape}")
    units = _units(dataset, labels)
    strata = _strata(dataset, stratify_by)
    chosen = _deal(units, strata, shares, np.random.default_rng(seed))
    return dataset.with_samples(
        replace(sample, split=names[chosen[unit]])
        for sample, unit in zip(dataset.samples, units, strict=True)
    )


def _units(dataset: Dataset, clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Dense numbers of what may not be torn apart."""
    _, dense = np.unique(clusters, return_inverse=True)
    numbers = np.arange(len(dataset))
    first = np.full(dense.max() + 1, len(dataset), dtype=np.int64)
    np.minimum.at(first, dense, numbers)
    labels = merge(numbers, numbers, first[dense])
    for keys in (
        [s.pair_id for s in dataset.samples],
        [s.metadata.get(PARENT_IMAGE) for s in dataset.samples],
    ):
        seen: dict[str, int] = {}
        same = np.array([i if k is None else seen.setdefault(k, i) for i, k in enumerate(keys)])
        labels = merge(labels, numbers, same)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _strata(dataset: Dataset, groups: Sequence[str]) -> NDArray[np.int64]:
    columns = [dataset.labels, *(dataset.groups[g] for g in groups)]
    numbers: dict[tuple[str, ...], int] = {}
    rows = zip(*(c.tolist() for c in columns), strict=True)
    return np.array([numbers.setdefault(row, len(numbers)) for row in rows], dtype=np.int64)


def _deal(
    units: NDArray[np.int64], strata: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Split of each unit: large ones first, each to where its strata are least filled."""
    n_units, n_strata = int(units.max()) + 1, int(strata.max()) + 1
    sizes = np.bincount(units, minlength=n_units)
    order = rng.permutation(n_units)
    order = order[np.argsort(-sizes[order], kind="stable")]
    members = np.argsort(units, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    wanted = shares[:, None] * np.bincount(strata, minlength=n_strata)  # (splits, strata)
    wanted_in_all = shares * len(units)
    missing, missing_in_all = wanted.copy(), wanted_in_all.copy()
    chosen = np.empty(n_units, dtype=np.int64)
    for unit in order:
        cells, counts = np.unique(strata[members[bounds[unit] : bounds[unit + 1]]], return_counts=True)
        # The fill of the whole decides where strata do not: with one image in each class every split lacks
        # all of it, and all images would go to the first.
        score = (
            missing[:, cells] / wanted[:, cells]
        ) @ counts / counts.sum() + missing_in_all / wanted_in_all
        split = int(np.argmax(score))
        missing[split, cells] -= counts
        missing_in_all[split] -= counts.sum()
        chosen[unit] = split
    return chosen
