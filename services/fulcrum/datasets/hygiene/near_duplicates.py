"""Near-duplicates among many images: exact search by hash, by embedding, and clusters of what was found."""

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from math import comb
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.hygiene.phash import hamming
from fulcrum.domain.errors import ComputationFailed, InvalidSettings

Labels = NDArray[np.int64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
Confirm = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]

MAX_RADIUS: Final = 16


def near_pairs(hashes: NDArray[np.uint64], radius: int) -> Pairs:
    """All pairs (a < b, sorted) with at most `radius` differing bits; k equal hashes give k (k-1) / 2."""
    keys = [np.zeros(0, np.int64)]
    for i, j in _near_blocks(hashes, radius):
        keys.append(np.minimum(i, j) * hashes.size + np.maximum(i, j))
    found = np.unique(
        np.concatenate(keys)
    )  # a pair is found once for every choice of pieces on which it agrees
    return found // max(1, hashes.size), found % max(1, hashes.size)


def hash_clusters(
    hashes: NDArray[np.uint64], radius: int, labels: Labels | None = None, confirm: Confirm | None = None
) -> Labels:
    """`labels` (None: each image by itself) joined further where hashes are within `radius` bits.

    A label is the smallest number of its cluster; only one image of each given cluster is compared, so that a
    thousand copies cost a thousand steps and not a million. `confirm(a, b)` may turn down pairs (numbers)
    which only their hashes make look alike.
    """
    labels = np.arange(hashes.size) if labels is None else labels
    if confirm is None:
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        labels = merge(labels, np.arange(hashes.size), first[group])
    chosen = np.unique(labels)
    for i, j in _near_blocks(hashes[chosen], radius):
        a, b = chosen[i], chosen[j]
        apart = labels[a] != labels[b]
        a, b = a[apart], b[apart]
        if confirm is not None and a.size:
            near = confirm(a, b)
            a, b = a[near], b[near]
        labels = merge(labels, a, b)
    return labels


def cosine_clusters(
    embeddings: NDArray[np.floating[Any]], labels: Labels, min_cosine: float = 0.95, chunk: int = 2048
) -> Labels:
    """`labels` joined further where embeddings (n, d) have a cosine of at least `min_cosine`.

    Exact: n^2 d / 2 multiplications in blocks of `chunk` rows.

    Raises ComputationFailed for rows without direction.
    """
    if not 0 < min_cosine <= 1:
        raise InvalidSettings(f"min_cosine must be in (0, 1], got {min_cosine}")
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not np.all(np.isfinite(norms)) or np.any(norms == 0):
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        raise ComputationFailed(f"{bad.size} embeddings are zero or not finite, first: image {bad[0]}")
    unit = (embeddings / norms[:, None]).astype(np.float32)
    for start in range(0, len(unit), chunk):
        rows = unit[start : start + chunk]
        for other in range(start, len(unit), chunk):
            near = rows @ unit[other : other + chunk].T >= min_cosine - 1e-6  # float32 rounding of equal rows
            a, b = np.nonzero(near)
            labels = merge(labels, a + start, b + other)
    return labels


def merge(labels: Labels, a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]) -> Labels:
    """Labels after joining every a[i] with b[i]; a label is its cluster's smallest number (union-find)."""
    parent = labels.copy()
    while True:
        root_a, root_b = parent[a], parent[b]
        differ = root_a != root_b
        if not differ.any():
            return parent
        a, b = a[differ], b[differ]
        low = np.minimum(root_a[differ], root_b[differ])
        np.minimum.at(parent, np.maximum(root_a[differ], root_b[differ]), low)
        while True:  # halve paths until every number points to its root
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand


def _near_blocks(values: NDArray[np.uint64], radius: int) -> Iterator[Pairs]:
    """Pairs of positions within `radius`, in blocks; a pair may come several times.

    Block permutation of Manku, Jain, Das Sarma 2007: cut 64 bits into radius + c pieces; two words within
    radius agree on at least c of them. For each choice of c pieces, words which agree on these stand together
    once sorted.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise InvalidSettings(f"the radius must be 0 .. {MAX_RADIUS} bits, got {radius}")
    if values.size < 2:
        return
    for mask in _masks(radius, values.size):
        masked = values & mask
        order = np.argsort(masked)
        sorted_values = masked[order]
        # Compares each word with its 1st, 2nd ... successor while the masked words agree: memory stays O(n).
        here = np.arange(values.size - 1)
        step = 1
        while here.size:
            here = here[here + step < values.size]
            here = here[sorted_values[here] == sorted_values[here + step]]
            i, j = order[here], order[here + step]
            near = hamming(values[i], values[j]) <= radius
            if near.any():
                yield i[near], j[near]
            step += 1


def _masks(radius: int, n: int) -> list[np.uint64]:
    """Bit masks of the choices of pieces that cost least: sorts against comparisons in the buckets."""
    if radius == 0:
        return [np.uint64(2**64 - 1)]

    def cost(c: int) -> float:
        bits = 64 * c / (radius + c)
        return comb(radius + c, c) * (n * 10 + n * n / 2**bits)

    c = min(range(1, 5), key=cost)
    edges = [64 * i // (radius + c) for i in range(radius + c + 1)]
    pieces = [((1 << b) - 1) ^ ((1 << a) - 1) for a, b in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(pieces, c)]
