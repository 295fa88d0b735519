"""Duplicates and pairs across splits: what a correction was found on must not be what proves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.samples import Dataset

_BLOCK = 2048

LeakKind = Literal["bytes", "pixels", "near", "embedding", "pair"]


@dataclass(frozen=True)
class Leak:
    """Images that belong together and stand in several splits."""

    # The strongest link: equal bytes, equal pixels, near-duplicates by hash, by embedding, or one pair_id only.
    kind: LeakKind
    ids: dict[str, tuple[str, ...]]  # split -> ids
    link: tuple[str, str, float] | None = None  # of embeddings: the most similar two in different splits


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
    hash_clusters: NDArray[np.integer[Any]] | None = None,
    embeddings: NDArray[np.floating[Any]] | None = None,
) -> LeakageReport:
    """Clusters (n,) and pair_ids that span splits. Images without split take no part.

    Where `embeddings` (n, d) had a part in the clusters, `hash_clusters` are those without them.
    """
    leaks: list[Leak] = []
    leaking = np.zeros(len(dataset), dtype=bool)
    pairs = _pair_clusters(dataset)
    # Strongest first, so that each set of images is reported once, by its strongest link.
    kinds: list[tuple[LeakKind, NDArray[np.integer[Any]] | None]] = [
        ("bytes", bytes_clusters),
        ("pixels", pixels_clusters),
        ("near", clusters if embeddings is None else hash_clusters),
        ("embedding", None if embeddings is None else clusters),
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
                link = None
                if kind == "embedding" and embeddings is not None:
                    link = _closest(dataset, members, embeddings)
                leaks.append(Leak(kind, ids, link))
    n_images = {s: int((leaking & (dataset.splits == s)).sum()) for s in dataset.split_names}
    return LeakageReport(tuple(leaks), n_images)


def spanning(splits: NDArray[np.str_], labels: NDArray[np.integer[Any]]) -> Sequence[NDArray[np.int64]]:
    """Members (numbers) of each cluster whose images stand in more than one split; label -1 is no cluster."""
    chosen = np.flatnonzero((splits != "") & (labels >= 0))
    order = chosen[np.argsort(labels[chosen], kind="stable")]
    bounds = np.flatnonzero(np.diff(labels[order], prepend=-2, append=-2))
    groups = [order[a:b] for a, b in pairwise(bounds.tolist()) if b - a > 1]
    return [members for members in groups if len(set(splits[members].tolist())) > 1]


def _closest(
    dataset: Dataset, members: NDArray[np.int64], embeddings: NDArray[np.floating[Any]]
) -> tuple[str, str, float] | None:
    """The most similar two of different splits; in blocks, since a model may take all images for one."""
    members = members[embeddings[members].any(axis=1)]
    best: tuple[str, str, float] | None = None
    for start in range(0, len(members), _BLOCK):
        rows = members[start : start + _BLOCK]
        for other in range(start, len(members), _BLOCK):
            columns = members[other : other + _BLOCK]
            cosine = _unit(embeddings[rows]) @ _unit(embeddings[columns]).T
            cosine[dataset.splits[rows, None] == dataset.splits[None, columns]] = -1
            a, b = np.unravel_index(int(cosine.argmax()), cosine.shape)
            value = float(cosine[a, b])
            if value > (-1 if best is None else best[2]):
                best = (str(dataset.ids[rows[a]]), str(dataset.ids[columns[b]]), value)
    return best


def _unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def _pair_clusters(dataset: Dataset) -> NDArray[np.int64]:
    _, group = np.unique(dataset.pair_ids, return_inverse=True)
    return np.where(dataset.pair_ids == "", -1, group).astype(np.int64)
