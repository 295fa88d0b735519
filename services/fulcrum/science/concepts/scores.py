"""Clarity, redundancy and polysemanticity of latents (SemanticLens, Dreyer et al. 2025), from embeddings."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.vectors import unit_vectors

_N_PARTNERS: Final = 32


@dataclass(frozen=True)
class Redundancy:
    """`values[j]`: largest cosine of mean j with another latent's mean, -1 .. 1; `nearest[j]`: which (a
    row).
    """

    values: Float[np.ndarray, " n_latents"]
    nearest: Int[np.ndarray, " n_latents"]


@dataclass(frozen=True)
class Polysemanticity:
    """`value` is 0 (one meaning) .. 2 (opposite ones); `second` marks the images of the second meaning.

    A second meaning of one image is an outlier rather than a meaning: look at `second` before believing the
    value.
    """

    value: float
    second: Bool[np.ndarray, " n"]


def clarity(embeddings: Float[np.ndarray, "n d_embed"]) -> float:
    """`(|mean v|^2 - 1/n) n/(n-1)`, v the unit embeddings of n top images: their mean off-diagonal cosine.

    In -1/(n-1) .. 1. Raises InvalidInput for n < 2: one image says nothing about agreement.
    """
    v = _images(embeddings, 2, "clarity")
    return _clarity_of_units(v)


def redundancy(means: Float[np.ndarray, "n_latents d_embed"], chunk: int = 1024) -> Redundancy:
    """`max over k != j of cos(mean_j, mean_k)`, a value for every latent; the first of equally near ones.

    Works in the precision of `means`, `chunk` rows at a time. Raises InvalidInput for fewer than two latents.
    """
    if means.ndim != 2 or means.shape[0] < 2:
        raise InvalidInput(f"redundancy needs means of (>= 2 latents, d_embed), got shape {means.shape}")
    if chunk < 1:
        raise InvalidInput(f"chunk={chunk} must be >= 1")
    unit = unit_vectors(means, "means").astype(np.result_type(means, np.float32))
    values = np.empty(len(unit))
    nearest = np.empty(len(unit), dtype=np.int64)
    for start in range(0, len(unit), chunk):
        cosines = unit[start : start + chunk] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        best = cosines.argmax(axis=1)
        values[start : start + chunk] = cosines[rows, best]
        nearest[start : start + chunk] = best
    return Redundancy(np.clip(values, -1.0, 1.0), nearest)


def polysemanticity(embeddings: Float[np.ndarray, "n d_embed"]) -> Polysemanticity:
    """`1 - clarity(the two 2-means centres)` = 1 - cosine of the centres, on unit embeddings.

    2-means starts from every image paired with each of the 32 least like it and keeps the tightest end (the
    first of equal ones), so no random seed is involved. Identical images have one centre and the value 0.
    Raises InvalidInput for n < 4 (two images are always two clusters), ComputationFailed for a centre at
    zero.
    """
    v = _images(embeddings, 4, "polysemanticity")
    second = _two_means(v @ v.T)
    if not second.any():
        return Polysemanticity(0.0, second)
    centres = np.stack([v[~second].mean(axis=0), v[second].mean(axis=0)])
    norms = np.linalg.norm(centres, axis=1, keepdims=True)
    if (norms < 1e-12).any():
        raise ComputationFailed("the embeddings of a cluster cancel: its centre has no direction")
    return Polysemanticity(float(1.0 - _clarity_of_units(centres / norms)), second)


def _images(embeddings: FloatArray, n_min: int, what: str) -> FloatArray:
    if embeddings.ndim != 2 or embeddings.shape[0] < n_min:
        raise InvalidInput(
            f"{what} needs embeddings of (n >= {n_min} images, d_embed), got shape {embeddings.shape}"
        )
    return unit_vectors(embeddings, "embeddings")


def _clarity_of_units(v: FloatArray) -> float:
    n = len(v)
    mean = v.mean(axis=0)
    value = (float(mean @ mean) - 1 / n) * n / (n - 1)
    return float(np.clip(value, -1 / (n - 1), 1.0))


def _two_means(gram: FloatArray, n_steps: int = 50) -> Bool[np.ndarray, " n"]:
    """Membership in the second cluster (that without the first image), from the Gram matrix of unit vectors.

    All starts run together: `member` is (starts, n). |v_i - c|^2 = 1 - 2 v_i.c + |c|^2, where v_i.c and |c|^2
    are means of the Gram matrix, so no centre is ever formed.
    """
    n = len(gram)
    partners = np.argsort(gram, axis=1, kind="stable")[:, : min(n, _N_PARTNERS)].ravel()
    member = _distinct(gram[partners] > gram[np.repeat(np.arange(n), len(partners) // n)])
    for _ in range(n_steps):
        to_first, first_square = _to_centres(~member, gram)
        to_second, second_square = _to_centres(member, gram)
        nearer = second_square - 2 * to_second < first_square - 2 * to_first - 1e-12
        # A second cluster without members has no centre: all images are alike, and stay together.
        moved = _distinct(nearer & member.any(axis=1, keepdims=True))
        if np.array_equal(moved, member):
            break
        member = moved
    # Inertia is n - sum over clusters of size |centre|^2: the tightest split has the largest sum.
    tightness = np.zeros(len(member))
    for cluster in (~member, member):
        tightness += cluster.sum(axis=1) * _to_centres(cluster, gram)[1][:, 0]
    best: NDArray[np.bool_] = member[int(np.argmax(tightness >= tightness.max() - 1e-12))]
    return best


def _to_centres(cluster: NDArray[np.bool_], gram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """v_i.c (splits, n) and |c|^2 (splits, 1) for the centre c of a cluster in each split; 0 if empty."""
    weights = cluster / np.maximum(cluster.sum(axis=1, keepdims=True), 1)
    to_centre: FloatArray = weights @ gram
    return to_centre, (to_centre * weights).sum(axis=1, keepdims=True)


def _distinct(member: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Splits without repetition, the first image in the first cluster; most starts soon coincide."""
    member = member ^ member[:, :1]
    packed = np.packbits(member, axis=1)
    _, keep = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True)
    return member[np.sort(keep)]
