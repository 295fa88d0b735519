"""Paired bootstrap: base and corrected of an image are always drawn together.

Percentile intervals, not BCa: the statistics that need a bootstrap here (a 95th percentile, a maximum over
groups, a binned calibration error) are not smooth, so BCa's jackknife acceleration is not consistent for
them, and its n extra evaluations cost more than the draws. ECE is biased upwards, in a resample a little
more; in the *difference* of two models on the same draws most of that cancels, which is why only differences
of ECE have intervals.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from fulcrum.domain.errors import ComputationFailed, InvalidInput, InvalidSettings
from fulcrum.science.validation.arrays import check_length, check_share
from fulcrum.science.validation.intervals import Interval

# How often each of n images was drawn, one resample per row -> one value per resample and column; nan where a
# resample holds no image that the statistic is about.
Statistic = Callable[[Float[np.ndarray, "b n"]], Float[np.ndarray, "b k"]]

# 2 MB, which stay in the processor's cache from one statistic to the next: larger pieces take twice as long.
WEIGHTS_PER_CHUNK = 250_000


class PairedBootstrap:
    """Resamples of `n` images, or of duplicate clusters with all their images.

    The same seed gives the same draws.
    """

    def __init__(
        self,
        n: int,
        clusters: Int[np.ndarray, " n"] | None = None,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        if n < 1 or n_resamples < 1:
            raise InvalidSettings(f"n={n} and n_resamples={n_resamples} must be at least 1")
        self.n, self.n_resamples, self.seed = n, n_resamples, seed
        self._ids: Int[np.ndarray, " n"] | None = None
        self.n_units = n
        if clusters is not None:
            check_length("clusters", clusters, n)
            unique, ids = np.unique(clusters, return_inverse=True)
            if len(unique) < n:
                self._ids, self.n_units = ids, len(unique)

    def weights(self) -> Iterator[Float[np.ndarray, "b n"]]:
        """All resamples, in chunks of rows that fit memory."""
        rng = np.random.default_rng(self.seed)
        m = self.n_units
        rows = max(1, WEIGHTS_PER_CHUNK // max(m, self.n))
        for start in range(0, self.n_resamples, rows):
            b = min(rows, self.n_resamples - start)
            drawn = rng.integers(0, m, size=(b, m)) + np.arange(b)[:, None] * m
            counts = np.bincount(drawn.ravel(), minlength=b * m).reshape(b, m).astype(np.float64)
            yield counts if self._ids is None else counts[:, self._ids]

    def draws(self, *statistics: Statistic) -> list[Float[np.ndarray, "n_resamples k"]]:
        """Every statistic on the same resamples, in one pass over them."""
        parts: list[list[Float[np.ndarray, "b k"]]] = [[] for _ in statistics]
        for weights in self.weights():
            for part, statistic in zip(parts, statistics, strict=True):
                part.append(statistic(weights))
        return [np.concatenate(part) for part in parts]


def on_the_sample(statistic: Statistic, n: int) -> Float[np.ndarray, " k"]:
    """The statistic on the images themselves, each once."""
    return np.asarray(statistic(np.ones((1, n)))[0], dtype=np.float64)


def percentile_interval(draws: Float[np.ndarray, " n_resamples"], level: float = 0.95) -> Interval:
    """Central interval of the draws; undefined draws (nan) stay out.

    Raises ComputationFailed when most are.
    """
    check_share("level", level)
    defined = draws[~np.isnan(draws)]
    if len(defined) < 0.9 * len(draws):
        raise ComputationFailed(
            f"the statistic is undefined in {len(draws) - len(defined)} of {len(draws)} resamples: "
            "too few images for it"
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def mean_of(values: Float[np.ndarray, "n k"], among: Bool[np.ndarray, " n"] | None = None) -> Statistic:
    """Statistic: the mean of each column over the images in `among`."""
    n = len(values)
    mask = np.ones(n) if among is None else among.astype(np.float64)
    # Rows outside may be undefined (nan); 0 x nan would spread into every resample.
    weighted = np.column_stack([np.where(mask[:, None] > 0, values, 0.0), mask])

    def statistic(weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b k"]:
        sums = weights @ weighted
        return _ratio(sums[:, :-1], sums[:, -1:])

    return statistic


def quantile_of(
    values: Float[np.ndarray, " n"], q: float, among: Bool[np.ndarray, " n"] | None = None
) -> Statistic:
    """Statistic: the smallest value with at least a share q of the images at or below it (inverted CDF)."""
    check_share("q", q)
    chosen = np.arange(len(values)) if among is None else np.flatnonzero(among)
    if len(chosen) == 0:
        raise InvalidInput("a quantile of no images: at least one is needed")
    order = chosen[np.argsort(values[chosen], kind="stable")]
    ascending = values[order]
    member = np.zeros(len(values))
    member[chosen] = 1.0
    # Resamples land near the sample's own quantile: mass is only followed inside this window, 8 standard
    # errors of an unclustered sample wide, and the few resamples that leave it are done in full.
    m, reach = len(order), int(8 * np.sqrt(len(order) * q * (1 - q))) + 8
    first, last = max(0, int(q * m) - reach), min(m, int(q * m) + reach)
    lower = np.zeros(len(values))
    lower[order[:first]] = 1.0
    sides = np.column_stack([member, lower])

    def statistic(weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b k"]:
        total, mass_below = (weights @ sides).T
        # The tolerance keeps q * total = 19.000000000000004 from skipping the 19th value.
        wanted = q * total - 1e-9
        mass = np.cumsum(np.take(weights, order[first:last], axis=1), axis=1) + mass_below[:, None]
        found = ascending[first + (mass >= wanted[:, None]).argmax(axis=1)]
        outside = np.flatnonzero((mass_below >= wanted) | (mass[:, -1] < wanted))
        if len(outside):
            full = np.cumsum(np.take(weights[outside], order, axis=1), axis=1)
            found[outside] = ascending[(full >= wanted[outside, None]).argmax(axis=1)]
        return np.where(total > 0, found, np.nan)[:, None]

    return statistic


def worst_of(values: Float[np.ndarray, "n k"], groups: Sequence[Int[np.ndarray, " _"]]) -> Statistic:
    """Statistic: for each column of values, the smallest mean over the groups (image numbers)."""
    if not groups:
        raise InvalidInput("a worst group of no groups: at least one is needed")
    n, n_groups = len(values), len(groups)
    images = np.concatenate(groups)
    owner = np.repeat(np.arange(n_groups), [len(g) for g in groups])
    # Sparse: 1000 groups of 50 000 images would be 400 MB dense, and almost all of it zeros.
    membership = sparse.csr_array((np.ones(len(images)), (owner, images)), shape=(n_groups, n))
    columns = [membership.multiply(values[:, j]).tocsr() for j in range(values.shape[1])]

    def statistic(weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b k"]:
        drawn = np.ascontiguousarray(weights.T)
        size = membership @ drawn
        lowest = []
        for column in columns:
            means = _ratio(column @ drawn, size)
            lowest.append(np.where(np.isnan(means), np.inf, means).min(axis=0))
        worst = np.stack(lowest, axis=1)
        return np.where(np.isinf(worst), np.nan, worst)

    return statistic


def _ratio(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*other"]
) -> Float[np.ndarray, "*shape"]:
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.nan)
