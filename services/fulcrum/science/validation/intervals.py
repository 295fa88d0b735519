"""Intervals of proportions and of their paired differences."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import check_share
from fulcrum.science.validation.flips import FlipTable


@dataclass(frozen=True)
class Interval:
    """A confidence interval with its two-sided level: 0.95 means 2.5 % outside on each side."""

    low: float
    high: float
    level: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def normal_quantile(p: float) -> float:
    """Z with P(Z <= z) = p."""
    return float(special.ndtri(p))


def agresti_min(table: FlipTable, level: float = 0.95) -> Interval:
    """Interval of the net gain `PFR - NFR`: Wald after 0.5 is added to each of the four cells.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005. Clipped
    to [-1, 1].
    """
    low, high = agresti_min_many(
        np.array([table.broken]), np.array([table.fixed]), np.array([table.n]), level
    )
    return Interval(float(low[0]), float(high[0]), level)


def agresti_min_many(
    broken: Shaped[np.ndarray, " m"],
    fixed: Shaped[np.ndarray, " m"],
    n: Shaped[np.ndarray, " m"],
    level: float = 0.95,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Lower and upper ends of `agresti_min` of many tables at once; counts may be fractional (effective)."""
    z = normal_quantile(0.5 + check_share("level", level) / 2)
    size = n + 2.0
    d = (fixed - broken) / size
    # With b = broken + .5 and c = fixed + .5: variance ((b + c) - (c - b)^2 / size) / size^2.
    half = z * np.sqrt((broken + fixed + 1.0) - (fixed - broken) ** 2 / size) / size
    return np.maximum(-1.0, d - half), np.minimum(1.0, d + half)


def clopper_pearson_upper(count: float, n: float, alpha: float = 0.05) -> float:
    """One-sided upper bound `BetaInv(1 - alpha; count + 1, n - count)`; 1 when count = n.

    `count` and `n` may be fractional: effective counts of clustered samples (`effective_size`).
    """
    _check_proportion(count, n, alpha)
    return 1.0 if count >= n else float(special.betaincinv(count + 1, n - count, 1 - alpha))


def clopper_pearson_lower(count: float, n: float, alpha: float = 0.05) -> float:
    """One-sided lower bound `BetaInv(alpha; count, n - count + 1)`; 0 when count = 0."""
    _check_proportion(count, n, alpha)
    return 0.0 if count <= 0 else float(special.betaincinv(count, n - count + 1, alpha))


def clopper_pearson(count: int, n: int, level: float = 0.95) -> Interval:
    """Two-sided exact interval of a share."""
    tail = (1 - check_share("level", level)) / 2
    return Interval(clopper_pearson_lower(count, n, tail), clopper_pearson_upper(count, n, tail), level)


def simultaneous_level(level: float, n_intervals: int) -> float:
    """Level of each of `n_intervals` so that all of them hold together with `level` (Bonferroni).

    Groups from several columns share images, so Sidak's independence is not there to be used.
    """
    return 1 - (1 - check_share("level", level)) / max(1, n_intervals)


@dataclass(frozen=True)
class RateBound:
    """A rate with one-sided bounds, each holding with 1 - alpha by itself.

    `n_effective` is `n` for independent images, and smaller where duplicates flip together.
    """

    count: int
    n: int
    rate: float
    lower: float
    upper: float
    alpha: float
    n_effective: float


def effective_size(values: Float[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None) -> float:
    """Independent images that would give the mean of `values` the variance it has with its duplicates.

    `n / deff`, deff the variance of the cluster-total estimator over that of independent images, never
    below 1 (Korn and Graubard 1998). Values that are all equal show no variance, and the number of clusters
    is taken.
    """
    n = len(values)
    if clusters is None or n == 0:
        return float(n)
    _, ids = np.unique(clusters, return_inverse=True)
    m = int(ids.max()) + 1
    if m == n:
        return float(n)
    residual = values - values.mean()
    independent = float((residual**2).sum()) / n**2
    if m == 1 or independent == 0:
        return float(m)
    clustered = m / (m - 1) * float((np.bincount(ids, weights=residual, minlength=m) ** 2).sum()) / n**2
    return n * min(1.0, independent / clustered) if clustered > 0 else float(n)


def rate_bound(
    hit: Bool[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None = None, alpha: float = 0.05
) -> RateBound:
    """Clopper-Pearson bounds of the share of images hit, at their effective size where `clusters` repeat.

    Raises InvalidInput for no images.
    """
    n, count = len(hit), int(hit.sum())
    if n == 0:
        raise InvalidInput("a rate of no images: at least one is needed")
    size = effective_size(hit.astype(np.float64), clusters)
    share = count / n
    return RateBound(
        count=count,
        n=n,
        rate=share,
        lower=clopper_pearson_lower(share * size, size, alpha),
        upper=clopper_pearson_upper(share * size, size, alpha),
        alpha=alpha,
        n_effective=size,
    )


def _check_proportion(count: float, n: float, alpha: float) -> None:
    check_share("alpha", alpha)
    if not (math.isfinite(n) and n > 0 and 0 <= count <= n):
        raise InvalidInput(f"{count} of {n} is not a share: 0 <= count <= n and n > 0 are needed")
