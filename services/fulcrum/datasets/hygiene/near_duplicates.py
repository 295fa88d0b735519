"""Near-duplicates among many images: exact search by hash, by embedding, and clusters of what was found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.byte_sources import Progress
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


@dataclass(frozen=True)
class CosineLinks:
    """Clusters (n,) after joining by cosine, and what joined them that nothing else did.

    `nearest` (n,) is for each image the most similar one that the labels before did not join with it, -1 where none is
    similar enough; `cosines` (n,) their cosines, 0 where there is none.
    """

    labels: Labels
    nearest: NDArray[np.int64]
    cosines: NDArray[np.float32]

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Each link once, (a < b, cosine), most similar first."""
        found = np.flatnonzero(self.nearest >= 0)
        low, high = np.minimum(found, self.nearest[found]), np.maximum(found, self.nearest[found])
        _, once = np.unique(low * len(self.nearest) + high, return_index=True)
        once = once[np.argsort(-self.cosines[found][once], kind="stable")]
        return low[once], high[once], self.cosines[found][once]


def cosine_clusters(
    embeddings: NDArray[np.floating[Any]], labels: Labels, min_cosine: float = 0.95, chunk: int = 2048
) -> Labels:
    """`labels` of `cosine_links`."""
    return cosine_links(embeddings, labels, min_cosine, chunk).labels


def cosine_links(
    embeddings: NDArray[np.floating[Any]],
    labels: Labels,
    min_cosine: float = 0.95,
    chunk: int = 2048,
    progress: Progress | None = None,
) -> CosineLinks:
    """`labels` joined further where embeddings (n, d) have a cosine of at least `min_cosine`.

    Exact: n^2 d / 2 multiplications in blocks of `chunk` rows; beside the embeddings and a copy of them in float32,
    memory for a few blocks. `progress(done, n)` is told of rows that were compared with all others.

    Raises ComputationFailed for rows without direction.
    """
    if not 0 < min_cosine <= 1:
        raise InvalidSettings(f"min_cosine must be in (0, 1], got {min_cosine}")
    unit = _unit(embeddings, chunk)
    n, least = len(unit), np.float32(min_cosine - 1e-6)  # float32 rounding of equal rows
    given = labels
    nearest = np.full(n, -1, dtype=np.int64)
    cosines = np.zeros(n, dtype=np.float32)
    for start in range(0, n, chunk):
        rows = slice(start, min(start + chunk, n))
        for other in range(start, n, chunk):
            columns = slice(other, min(other + chunk, n))
            cosine = unit[rows] @ unit[columns].T
            a, b = np.nonzero(cosine >= least)
            apart = given[a + start] != given[b + other]
            if not apart.any():
                continue
            labels = merge(labels, a[apart] + start, b[apart] + other)
            cosine[(cosine < least) | (given[rows, None] == given[None, columns])] = 0
            _keep_nearest(nearest, cosines, rows, columns, cosine)
            _keep_nearest(nearest, cosines, columns, rows, cosine.T)
        if progress is not None:
            progress(rows.stop, n)
    return CosineLinks(labels, nearest, cosines)


def _keep_nearest(
    nearest: NDArray[np.int64],
    cosines: NDArray[np.float32],
    rows: slice,
    columns: slice,
    cosine: NDArray[np.float32],
) -> None:
    """Takes over (in place) what a block has that is more similar."""
    best = cosine.argmax(axis=1)
    found = cosine[np.arange(len(best)), best]
    better = np.flatnonzero(found > cosines[rows])
    nearest[rows.start + better] = columns.start + best[better]
    cosines[rows.start + better] = found[better]


def _unit(embeddings: NDArray[np.floating[Any]], chunk: int) -> NDArray[np.float32]:
    unit = np.empty(embeddings.shape, dtype=np.float32)
    bad: list[int] = []
    for start in range(0, len(unit), chunk):
        rows = embeddings[start : start + chunk].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        wrong = ~np.isfinite(norms) | (norms == 0)
        bad += (start + np.flatnonzero(wrong)).tolist()
        unit[start : start + chunk] = rows / np.where(wrong, 1.0, norms)[:, None]
    if bad:
        raise ComputationFailed(f"{len(bad)} embeddings are zero or not finite, first: image {bad[0]}")
    return unit


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
