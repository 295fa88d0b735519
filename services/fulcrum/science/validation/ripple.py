"""What else moved: probabilities, embeddings, classes, latents and concepts, on images that should stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import check_counts, check_length
from fulcrum.science.validation.intervals import Interval
from fulcrum.science.validation.mcnemar import sign_test_many
from fulcrum.science.validation.multiplicity import adjust

ROWS_PER_CHUNK = 8192


@dataclass(frozen=True)
class Spread:
    """A non-negative quantity over images: mean, 95th percentile (inverted CDF) and maximum."""

    n: int
    mean: float
    p95: float
    max: float


@dataclass(frozen=True)
class ClassMove:
    """How many answers a class lost to others and gained from others.

    `p` of the paired sign test, `q` over classes.
    """

    class_name: str
    n_before: int
    n_after: int
    n_left: int
    n_entered: int
    p: float
    q: float


@dataclass(frozen=True)
class Move:
    """One latent (re-encoded) or concept of a bank over the images.

    How many went up, how many down, by how much.
    """

    name: str
    n_up: int
    n_down: int
    mean_change: float
    p: float
    q: float


@dataclass(frozen=True)
class Ripple:
    """Side effects on `n` images that should not move; `kl` in nats, of softmax(logits / temperature)."""

    n: int
    population: str
    temperature: float
    kl: Spread
    kl_p95_interval: Interval
    embedding_drift: Spread | None  # 1 - cos; None where no embeddings were given
    classes: tuple[
        ClassMove, ...
    ]  # classes that gained or lost anything, most moved first, over all evaluated images
    latents: tuple[Move, ...]
    concepts: tuple[Move, ...]


def kl_divergence(
    base: Float[np.ndarray, "n n_classes"],
    corrected: Float[np.ndarray, "n n_classes"],
    temperature: float = 1.0,
) -> Float[np.ndarray, " n"]:
    """`KL(softmax(base / T) || softmax(corrected / T))` per image in nats, exactly 0 for equal logits."""
    kl = np.empty(len(base))
    for start in range(0, len(base), ROWS_PER_CHUNK):
        part = slice(start, start + ROWS_PER_CHUNK)
        log_p = special.log_softmax(base[part] / temperature, axis=1)
        log_q = special.log_softmax(corrected[part] / temperature, axis=1)
        kl[part] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    # KL is not negative; rounding can leave -1e-17.
    return np.maximum(kl, 0.0)


def embedding_drift(
    base: Float[np.ndarray, "n d"], corrected: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """`1 - cos` per image, in [0, 2]. Raises InvalidInput for an embedding of length 0."""
    if base.shape != corrected.shape:
        raise InvalidInput(f"embeddings before {base.shape} and after {corrected.shape} must have one shape")
    unit_base, unit_corrected = _unit(base), _unit(corrected)
    # |a - b|^2 / 2 = 1 - cos for unit vectors, without the cancellation of 1 - 0.99999999.
    return np.asarray(((unit_base - unit_corrected) ** 2).sum(axis=1) / 2, dtype=np.float64)


def spread(values: Float[np.ndarray, " n"]) -> Spread:
    """Mean, p95 and maximum. Raises InvalidInput for no images."""
    if len(values) == 0:
        raise InvalidInput("no images that should not move: at least one is needed")
    p95 = np.quantile(values, 0.95, method="inverted_cdf")
    return Spread(len(values), float(values.mean()), float(p95), float(values.max()))


def class_moves(
    base: Int[np.ndarray, " n"],
    corrected: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    method: Literal["bh", "by"] = "bh",
) -> tuple[ClassMove, ...]:
    """Classes that lost or gained answers, most moved first."""
    n_classes = len(class_names)
    moved = base != corrected
    left = np.bincount(base[moved], minlength=n_classes)
    entered = np.bincount(corrected[moved], minlength=n_classes)
    before = np.bincount(base, minlength=n_classes)
    p = sign_test_many(entered, left)
    q = adjust(p, method)
    order = np.lexsort((np.arange(n_classes), -(left + entered)))
    return tuple(
        ClassMove(
            class_name=class_names[c],
            n_before=int(before[c]),
            n_after=int(before[c] - left[c] + entered[c]),
            n_left=int(left[c]),
            n_entered=int(entered[c]),
            p=float(p[c]),
            q=float(q[c]),
        )
        for c in order
        if left[c] + entered[c] > 0
    )


def moves_from_counts(
    names: Sequence[str],
    n_up: Int[np.ndarray, " m"],
    n_down: Int[np.ndarray, " m"],
    mean_change: Float[np.ndarray, " m"],
    method: Literal["bh", "by"] = "bh",
) -> tuple[Move, ...]:
    """Paired sign tests with q over all m columns, in their order.

    Counts are what a sparse index gives cheaply.
    """
    for what, values in (("n_up", n_up), ("n_down", n_down), ("mean_change", mean_change)):
        check_length(what, values, len(names))
    if len(names):
        check_counts(n_up=int(n_up.min()), n_down=int(n_down.min()))
    p = sign_test_many(n_up, n_down)
    q = adjust(p, method)
    return tuple(
        Move(str(name), int(u), int(d), float(change), float(pj), float(qj))
        for name, u, d, change, pj, qj in zip(names, n_up, n_down, mean_change, p, q, strict=True)
    )


def moves(
    names: Sequence[str],
    before: Float[np.ndarray, "n m"],
    after: Float[np.ndarray, "n m"],
    atol: float = 1e-6,
    method: Literal["bh", "by"] = "bh",
) -> tuple[Move, ...]:
    """Paired sign tests of m columns over n images; changes up to `atol` (rounding) count as ties."""
    if before.shape != after.shape:
        raise InvalidInput(f"values before {before.shape} and after {after.shape} must have one shape")
    change = after - before
    return moves_from_counts(
        names, (change > atol).sum(axis=0), (change < -atol).sum(axis=0), change.mean(axis=0), method
    )


def concept_moves(
    names: Sequence[str],
    base: Float[np.ndarray, "n d"],
    corrected: Float[np.ndarray, "n d"],
    bank: Float[np.ndarray, "m d"],
    method: Literal["bh", "by"] = "bh",
) -> tuple[Move, ...]:
    """Which text prompts of a held-out concept bank (embeddings) the images came nearer to, in cosine."""
    directions = _unit(bank)
    return moves(names, _unit(base) @ directions.T, _unit(corrected) @ directions.T, method=method)


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise InvalidInput("embeddings must be finite and not of length 0")
    return np.asarray(wide / norms, dtype=np.float64)
