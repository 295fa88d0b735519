"""Duplicates and pairs across splits: what a correction was found on must not be what proves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.samples import Dataset

LeakKind = Literal["bytes", "pixels", "near", "pair"]


@dataclass(frozen=True)
class Leak:
    """Images that belong together and stand in several splits."""

    kind: LeakKind  # the strongest link: equal bytes, equal pixels, near-duplicates, or one pair_id only
    ids: dict[str, tuple[str, ...]]  # split -> ids


@dataclass(frozen=True)
class LeakageReport:
    """All leaks, and how many images of each split have a counterpart in another."""

    leaks: tuple[Leak, ...]
    n_images: dict[str, int]

    @property
    def clean(self) -> bool:
        """Whether nothing crosses."""
        return not self.leaks


def find_leakage(
    dataset: Dataset,
    clusters: NDArray[np.integer[Any]],
    *,
    bytes_clusters: NDArray[np.integer[Any]] | None = None,
    pixels_clusters: NDArray[np.integer[Any]] | None = None,
) -> LeakageReport:
    """Clusters (n,) and pair_ids that span splits. Images without split take no part."""
    leaks: list[Leak] = []
    leaking = np.zeros(len(dataset), dtype=bool)
    pairs = _pair_clusters(dataset)
    # Strongest first, so that each set of images is reported once, by its strongest link.
    kinds: list[tuple[LeakKind, NDArray[np.integer[Any]] | None]] = [
        ("bytes", bytes_clusters),
        ("pixels", pixels_clusters),
        ("near", clusters),
        ("pair", pairs),
    ]
    reported: set[frozenset[str]] = set()
    for kind, labels in kinds:
        if labels is None:
            continue
        for members in spanning(dataset.splits, labels):
            ids: dict[str, tuple[str, ...]] = {}
            for split in sorted(set(dataset.splits[members].tolist())):
                ids[split] = tuple(dataset.ids[m] for m in members if dataset.splits[m] == split)
            leaking[members] = True
            everyone = frozenset(i for some in ids.values() for i in some)
            if everyone not in reported:
                reported.add(everyone)
                leaks.append(Leak(kind, ids))
    n_images = {s: int((leaking & (dataset.splits == s)).sum()) for s in dataset.split_names}
    return LeakageReport(tuple(leaks), n_images)


def spanning(splits: NDArray[np.str_], labels: NDArray[np.integer[Any]]) -> Sequence[NDArray[np.int64]]:
    """Members (numbers) of each cluster whose images stand in more than one split; label -1 is no cluster."""
    chosen = np.flatnonzero((splits != "") & (labels >= 0))
    order = chosen[np.argsort(labels[chosen], kind="stable")]
    bounds = np.flatnonzero(np.diff(labels[order], prepend=-2, append=-2))
    groups = [order[a:b] for a, b in pairwise(bounds.tolist()) if b - a > 1]
    return [members for members in groups if len(set(splits[members].tolist())) > 1]


def _pair_clusters(dataset: Dataset) -> NDArray[np.int64]:
    _, group = np.unique(dataset.pair_ids, return_inverse=True)
    return np.where(dataset.pair_ids == "", -1, group).astype(np.int64)
