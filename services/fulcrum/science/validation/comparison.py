"""One paired comparison with everything that may be said about it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from fulcrum.science.validation.flips import BROKEN, FIXED, FlipTable, table_of_outcomes
from fulcrum.science.validation.intervals import (
    Interval,
    RateBound,
    agresti_min_many,
    effective_size,
    rate_bound,
)
from fulcrum.science.validation.mcnemar import mcnemar_exact, sign_flip_exact
from fulcrum.science.validation.power import minimum_detectable_effect
from fulcrum.science.validation.specification import Specification


@dataclass(frozen=True)
class PairedComparison:
    """Base against corrected on one set of labelled images. Rates, gains and effects are shares.

    `interval` (two-sided, 1 - alpha) is of `net`; `nfr_bound` is one-sided. `mde` is of the assumed
    discordant share and was known before the run; None where these images can show no effect. Where
    duplicates repeat (`n_clusters < n`) p comes from whole clusters and intervals use effective sizes.
    """

    n: int
    n_clusters: int
    n_effective: float
    still_right: int
    broken: int
    fixed: int
    still_wrong: int
    moved: int
    changed: int
    accuracy_before: float
    accuracy_after: float
    pfr: float
    nfr: float
    net: float
    relative_nfr: float | None
    fix_break_ratio: float
    p: float
    p_method: Literal["mcnemar_exact", "sign_flip_exact"]
    interval: Interval
    nfr_bound: RateBound
    mde: float | None


def net_per_image(outcome: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """+1 for fixed, -1 for broken, else 0."""
    return np.asarray((outcome == FIXED).astype(np.int64) - (outcome == BROKEN), dtype=np.int64)


def net_interval(
    outcome: Int[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None, level: float
) -> Interval:
    """Agresti-Min interval of the net gain, its counts shrunk to the effective size where clusters repeat."""
    net = net_per_image(outcome)
    size = effective_size(net.astype(np.float64), clusters)
    shrink = size / len(net)
    low, high = agresti_min_many(
        np.array([(net < 0).sum() * shrink]), np.array([(net > 0).sum() * shrink]), np.array([size]), level
    )
    return Interval(float(low[0]), float(high[0]), level)


def paired_p(
    outcome: Int[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None
) -> tuple[float, Literal["mcnemar_exact", "sign_flip_exact"]]:
    """Exact McNemar, or its sign-flip form over clusters where images repeat; with the name of the test."""
    net = net_per_image(outcome)
    if clusters is not None:
        unique, ids = np.unique(clusters, return_inverse=True)
        if len(unique) < len(net):
            totals = np.zeros(len(unique), dtype=np.int64)
            np.add.at(totals, ids, net)
            return sign_flip_exact(totals), "sign_flip_exact"
    return mcnemar_exact(int((net < 0).sum()), int((net > 0).sum())), "mcnemar_exact"


def compare(
    outcome: Int[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None, spec: Specification
) -> PairedComparison:
    """The comparison of labelled images given as `flips.outcomes`. Raises InvalidDataset for none."""
    table: FlipTable = table_of_outcomes(outcome)
    p, p_method = paired_p(outcome, clusters)
    return PairedComparison(
        n=table.n,
        n_clusters=table.n if clusters is None else len(np.unique(clusters)),
        n_effective=effective_size(net_per_image(outcome).astype(np.float64), clusters),
        still_right=table.still_right,
        broken=table.broken,
        fixed=table.fixed,
        still_wrong=table.still_wrong,
        moved=table.moved,
        changed=table.changed,
        accuracy_before=table.accuracy_before,
        accuracy_after=table.accuracy_after,
        pfr=table.pfr,
        nfr=table.nfr,
        net=table.net,
        relative_nfr=table.relative_nfr,
        fix_break_ratio=table.fix_break_ratio,
        p=p,
        p_method=p_method,
        interval=net_interval(outcome, clusters, 1 - spec.alpha),
        nfr_bound=rate_bound(outcome == BROKEN, clusters, spec.alpha),
        mde=minimum_detectable_effect(table.n, spec.discordant_share, spec.alpha, spec.power),
    )
