"""How concepts lie among each other: clusters, their agreement with given domains, an order and a map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from fulcrum.domain.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Of n concepts: average-linkage clusters, the dendrogram's order and linkage, and a map in two dimensions.

    `map_share` is the share of squared distance that the map's two axes keep.
    """

    clusters: NDArray[np.int64]  # (n,) from 0
    order: NDArray[np.int64]  # (n,) leaves from left to right
    linkage: NDArray[np.float64]  # (n - 1, 4) as scipy writes it
    positions: NDArray[np.float64]  # (n, 2)
    map_share: float


@dataclass(frozen=True, eq=False)
class Structure(Arrangement):
    """An arrangement in as many clusters as there are domains, and how well it agrees with them."""

    ari: float
    within: float  # mean similarity of two concepts of a domain
    between: float


def arrange(similarity: Float[np.ndarray, "n_concepts n_concepts"], n_clusters: int) -> Arrangement:
    """At most `n_clusters` clusters. Raises InvalidInput for similarities that are no symmetric finite matrix."""
    checked = check_similarity(similarity)
    distance = 1 - checked
    np.fill_diagonal(distance, 0)
    condensed = squareform(np.maximum(distance, 0), checks=False)
    tree = linkage(condensed, method="average")
    positions, share = _classical_mds(distance)
    return Arrangement(
        clusters=fcluster(tree, n_clusters, criterion="maxclust").astype(np.int64) - 1,
        order=leaves_list(optimal_leaf_ordering(tree, condensed)).astype(np.int64),
        linkage=tree,
        positions=positions,
        map_share=share,
    )


def can_be_recovered(domains: Sequence[str]) -> bool:
    """Whether there are at least two domains, one of them with two concepts."""
    return 1 < len(set(domains)) < len(domains)


def structure_of(similarity: Float[np.ndarray, "n_concepts n_concepts"], domains: Sequence[str]) -> Structure:
    """As many clusters as there are domains.

    Raises InvalidInput for similarities that are no symmetric finite matrix, or without two domains, one of them with
    two concepts.
    """
    checked = check_similarity(similarity)
    if len(domains) != len(checked):
        raise InvalidInput(f"{len(domains)} domains for {len(checked)} concepts: one for each")
    names, numbers = np.unique(np.asarray(domains), return_inverse=True)
    if not can_be_recovered(domains):
        raise InvalidInput(
            f"{len(domains)} concepts in {len(names)} domains: structure needs at least two domains, "
            "and one with two concepts"
        )
    arranged = arrange(checked, len(names))
    same = numbers[:, None] == numbers[None]
    upper = np.triu(np.ones_like(same), k=1)
    return Structure(
        **vars(arranged),
        ari=adjusted_rand(arranged.clusters, numbers.astype(np.int64)),
        within=float(checked[same & upper].mean()),
        between=float(checked[~same & upper].mean()),
    )


def adjusted_rand(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985): 1 for equal partitions, 0 in expectation for chance."""
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1)

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, in_a, in_b = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = in_a * in_b / (len(a) * (len(a) - 1) / 2)
    highest = (in_a + in_b) / 2
    # Both partitions are all one or all alone: they are equal.
    return 1.0 if highest == expected else (together - expected) / (highest - expected)


def check_similarity(
    similarity: Float[np.ndarray, "n_concepts n_concepts"],
) -> Float[np.ndarray, "n_concepts n_concepts"]:
    """As float64. Raises InvalidInput unless it is finite, symmetric and of at least two concepts."""
    values = np.asarray(similarity, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 2:
        raise InvalidInput(f"a similarity is (n, n) with n >= 2, got {values.shape}")
    if not np.isfinite(values).all() or not np.allclose(values, values.T, rtol=0, atol=1e-9):
        raise InvalidInput("a similarity must be finite and symmetric")
    return values


def _classical_mds(distance: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Torgerson's scaling; signs are fixed, so that the same distances give the same map."""
    n = len(distance)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centre @ distance**2 @ centre)
    top = np.argsort(values)[::-1][:2]
    kept = np.maximum(values[top], 0)
    axes = vectors[:, top] * np.sqrt(kept)
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    total = np.maximum(values, 0).sum()
    return axes, float(kept.sum() / total) if total > 0 else 0.0
