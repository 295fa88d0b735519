"""Do two corrections break together what neither breaks alone?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import UNLABELLED, check_length
from fulcrum.science.validation.bootstrap import PairedBootstrap, mean_of, percentile_interval
from fulcrum.science.validation.intervals import Interval


@dataclass(frozen=True)
class Interaction:
    """`interaction = NFR(A+B) - NFR(A) - NFR(B)`: above 0 the pair breaks more than the two would add up to.

    `net_interaction` is the same of net gains. Intervals are paired bootstraps.
    """

    first: str
    second: str
    n: int
    nfr_first: float
    nfr_second: float
    nfr_both: float
    interaction: float
    interval: Interval
    net_interaction: float
    net_interval: Interval


def interactions(
    labels: Int[np.ndarray, " n"],
    base: Int[np.ndarray, " n"],
    singles: Mapping[str, Int[np.ndarray, " n"]],
    pairs: Mapping[tuple[str, str], Int[np.ndarray, " n"]],
    clusters: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Interaction, ...]:
    """One row per pair whose joint predictions are given.

    `singles` are predictions under each correction alone. Unlabelled images stay out. Raises InvalidInput for
    a pair of which one has no predictions alone.
    """
    known = labels != UNLABELLED
    for name, values in {"base": base, **singles, **{" + ".join(k): v for k, v in pairs.items()}}.items():
        check_length(f"predictions {name!r}", values, len(labels))
    right = (base == labels)[known]

    def flips(values: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        now = (values == labels)[known]
        return (right & ~now).astype(np.int64), now.astype(np.int64) - right.astype(np.int64)

    missing = sorted({name for pair in pairs for name in pair if name not in singles})
    if missing:
        raise InvalidInput(f"pairs name corrections without predictions of their own: {missing}")
    if not known.any():
        raise InvalidInput("no labelled image: at least one is needed")
    if not pairs:
        return ()
    alone = {name: flips(values) for name, values in singles.items()}
    together = {pair: flips(values) for pair, values in pairs.items()}
    columns = [together[a, b][kind] - alone[a][kind] - alone[b][kind] for a, b in pairs for kind in (0, 1)]
    values = np.column_stack(columns).astype(np.float64)
    bootstrap = PairedBootstrap(len(values), None if clusters is None else clusters[known], n_resamples, seed)
    (draws,) = bootstrap.draws(mean_of(values))
    return tuple(
        Interaction(
            first=a,
            second=b,
            n=len(values),
            nfr_first=float(alone[a][0].mean()),
            nfr_second=float(alone[b][0].mean()),
            nfr_both=float(together[a, b][0].mean()),
            interaction=float(values[:, 2 * i].mean()),
            interval=percentile_interval(draws[:, 2 * i], level),
            net_interaction=float(values[:, 2 * i + 1].mean()),
            net_interval=percentile_interval(draws[:, 2 * i + 1], level),
        )
        for i, (a, b) in enumerate(pairs)
    )
