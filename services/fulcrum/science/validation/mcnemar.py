"""Exact paired tests on broken and fixed.

There is no unpaired test here: the two accuracies share their images.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from fulcrum.science.validation.arrays import check_counts


def mcnemar_exact(broken: int, fixed: int) -> float:
    """Two-sided p value `min(1, 2 sum_{k<=min} C(broken + fixed, k) 2^-(broken + fixed))`.

    1 without any flip.
    """
    check_counts(broken=broken, fixed=fixed)
    return float(mcnemar_exact_many(np.array([broken]), np.array([fixed]))[0])


def mcnemar_exact_many(
    broken: Int[np.ndarray, " m"], fixed: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """`mcnemar_exact` of many tables at once."""
    p = 2.0 * special.bdtr(np.minimum(broken, fixed), broken + fixed, 0.5)
    return np.asarray(np.minimum(1.0, np.where(broken + fixed == 0, 1.0, p)), dtype=np.float64)


def sign_flip_exact(net: Sequence[int] | Int[np.ndarray, " n_clusters"]) -> float:
    """Two-sided p value for `fixed - broken` per duplicate cluster, whose images do not answer independently.

    The exact randomisation distribution of `|sum_c s_c net_c|` over signs s_c = +-1. Clusters of one image
    give `mcnemar_exact`; a cluster of r images that flip together counts once, with weight r.
    """
    sizes = np.abs(np.asarray(net, dtype=np.int64))
    total = int(sizes.sum())
    # pmf[i] is P(sum = 2 i - total): signs of clusters of equal weight add up to a binomial, and the
    # binomials, spread by their weights, are convolved.
    pmf = np.ones(1)
    for weight, count in zip(*np.unique(sizes[sizes > 0], return_counts=True), strict=True):
        spread = np.zeros(int(weight) * int(count) + 1)
        k = np.arange(int(count) + 1)
        log_choose = special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1)
        spread[:: int(weight)] = np.exp(log_choose - count * np.log(2.0))
        pmf = np.convolve(pmf, spread)
    reached = abs(int(np.asarray(net, dtype=np.int64).sum()))
    sums = 2 * np.arange(total + 1) - total
    return float(min(1.0, pmf[np.abs(sums) >= reached].sum()))


def sign_test_many(n_up: Int[np.ndarray, " m"], n_down: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Two-sided exact paired sign test per column; ties stay out. The arithmetic is McNemar's."""
    return mcnemar_exact_many(n_down, n_up)
