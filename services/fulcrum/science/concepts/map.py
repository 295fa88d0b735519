"""Latents on a plane: those that look alike lie together (UMAP; McInnes, Healy, Melville 2018).

Our own in numpy, because the reference implementation compiles for a quarter of a minute in every new process. The
graph is exact; the layout takes the mean gradient of each point in a step, with negative samples from a seed, so the
same vectors give the same map.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.vectors import unit_vectors

# Of 1 / (1 + a d^(2b)), fitted to a minimal distance of 0.1 and a spread of 1 (the reference's defaults).
_A: Final = 1.576943460405378
_B: Final = 0.8950608781227859
_N_NEGATIVE: Final = 5
_N_STEPS: Final = 300
_CLIP: Final = 4.0  # of a gradient's component, as in the reference


def latent_map(
    vectors: Float[np.ndarray, "n d"], seed: int = 0, n_neighbors: int = 15
) -> Float[np.ndarray, "n 2"]:
    """Places in a square of -1 .. 1, by cosine. Up to four vectors lie on the axes of their principal components.

    Raises InvalidInput for vectors of zeros or with values that are not finite.
    """
    if n_neighbors < 2:
        raise InvalidInput(f"n_neighbors={n_neighbors} must be >= 2")
    unit = unit_vectors(vectors, "vectors")
    start = _principal(unit)
    if len(unit) <= 4:
        return _in_square(start)
    heads, tails, weights = _graph(unit, min(n_neighbors, len(unit) - 1))
    return _in_square(_laid_out(10 * _in_square(start), heads, tails, weights, seed))


def _principal(unit: FloatArray) -> FloatArray:
    """First two principal components; the sign is that of the largest loading, so that it is no accident."""
    centred = unit - unit.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(unit), 2))
    for i in range(min(2, len(values))):
        if values[i] > 1e-9:
            axis = axes[i] * np.sign(axes[i][np.argmax(np.abs(axes[i]))])
            places[:, i] = centred @ axis
    return places


def _graph(
    unit: FloatArray, k: int, chunk: int = 1024
) -> tuple[Int[np.ndarray, " n_edges"], Int[np.ndarray, " n_edges"], FloatArray]:
    """Edges of the fuzzy union, each once, with their membership in 0 .. 1."""
    n = len(unit)
    others, distances = np.empty((n, k), dtype=np.int64), np.empty((n, k))
    for begin in range(0, n, chunk):
        d = 1.0 - unit[begin : begin + chunk] @ unit.T
        rows = np.arange(len(d))
        d[rows, begin + rows] = np.inf
        near = np.argsort(d, axis=1, kind="stable")[:, :k]
        others[begin : begin + chunk] = near
        distances[begin : begin + chunk] = np.maximum(np.take_along_axis(d, near, axis=1), 0.0)
    member = memberships(distances)
    dense_keys = np.concatenate([np.arange(n)[:, None] * n + others, others * n + np.arange(n)[:, None]])
    forward = np.concatenate([member, np.zeros_like(member)]).ravel()
    backward = np.concatenate([np.zeros_like(member), member]).ravel()
    keys, place = np.unique(dense_keys.ravel(), return_inverse=True)
    a, b = np.bincount(place, forward), np.bincount(place, backward)
    heads, tails = np.divmod(keys, n)
    return heads, tails, a + b - a * b  # both directions are listed: every point is a head of its edges


def memberships(distances: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """`exp(-max(0, d - rho) / sigma)`, rho the nearest distance above 0, sigma so that a row sums to log2(k).

    `distances` ascend in a row. Found by bisection of all rows at once; sigma is at least a thousandth of the mean.
    """
    positive = np.where(distances > 0, distances, np.inf).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, 0.0)[:, None]
    beyond = np.maximum(distances - rho, 0.0)
    target = np.log2(distances.shape[1])
    low, high = np.zeros(len(distances)), np.full(len(distances), np.inf)
    sigma = np.ones(len(distances))
    for _ in range(64):
        too_much = np.exp(-beyond / sigma[:, None]).sum(axis=1) > target
        high = np.where(too_much, sigma, high)
        low = np.where(too_much, low, sigma)
        sigma = np.where(np.isfinite(high), (low + np.where(np.isfinite(high), high, 0.0)) / 2, sigma * 2)
    floor = 1e-3 * np.maximum(distances.mean(axis=1), 1e-12)
    member: FloatArray = np.exp(-beyond / np.maximum(sigma, floor)[:, None])
    return member


def _laid_out(
    places: FloatArray, heads: np.ndarray, tails: np.ndarray, weights: FloatArray, seed: int
) -> FloatArray:
    """Gradient descent on the cross entropy: edges pull by their membership, random points push."""
    n = len(places)
    drawn = np.random.default_rng(seed)
    places = places + drawn.normal(0.0, 1e-3, places.shape)  # equal vectors start apart
    degree = np.maximum(np.bincount(heads, weights, minlength=n), 1e-9)[:, None]
    for step in range(_N_STEPS):
        apart = places[heads] - places[tails]
        squared = (apart**2).sum(axis=1)
        with np.errstate(divide="ignore"):
            pull = np.where(squared > 0, -2 * _A * _B * squared ** (_B - 1) / (1 + _A * squared**_B), 0.0)
        move = _gathered(heads, np.clip(pull[:, None] * apart, -_CLIP, _CLIP) * weights[:, None], n) / degree
        others = drawn.integers(0, n, (n, _N_NEGATIVE))
        apart = places[:, None] - places[others]
        squared = (apart**2).sum(axis=2)
        push = 2 * _B / ((0.001 + squared) * (1 + _A * squared**_B))
        push[others == np.arange(n)[:, None]] = 0.0
        move = move + np.clip(push[:, :, None] * apart, -_CLIP, _CLIP).sum(axis=1) / 2
        places = places + (1 - step / _N_STEPS) * move
    return places


def _gathered(rows: np.ndarray, values: FloatArray, n: int) -> FloatArray:
    return np.stack([np.bincount(rows, values[:, i], minlength=n) for i in range(2)], axis=1)


def _in_square(places: FloatArray) -> FloatArray:
    """Centred, the larger extent at -1 .. 1."""
    centred: FloatArray = places - (places.max(axis=0) + places.min(axis=0)) / 2
    largest = float(np.abs(centred).max())
    return centred / largest if largest > 0 else centred
