"""What a correction does to each group and class, and to the worst of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray

from fulcrum.science.validation.arrays import check_length
from fulcrum.science.validation.bootstrap import Statistic, percentile_interval, worst_of
from fulcrum.science.validation.comparison import net_interval, paired_p
from fulcrum.science.validation.flips import BROKEN, FIXED, STILL_RIGHT, table_of_outcomes
from fulcrum.science.validation.intervals import Interval, rate_bound, simultaneous_level
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.power import minimum_detectable_effect
from fulcrum.science.validation.specification import Specification

CLASS_COLUMN = "class"

# A column of texts; numpy has a type for each length of text, so the checker is told of the shape alone.
Texts = Shaped[np.ndarray, " _"]


@dataclass(frozen=True)
class Group:
    """One value of one column, or of several crossed.

    `name` reads "sticker=word" or "sticker=word, frame=none".
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """How it is written."""
        return ", ".join(f"{c}={v}" for c, v in zip(self.columns, self.values, strict=True))


# A group and the numbers of its images.
Members = tuple[Group, Int[np.ndarray, " _"]]


@dataclass(frozen=True)
class GroupRow:
    """One group, before and after. Shares; `net` is the change of accuracy.

    `interval` and `nfr_upper` hold for all judged groups of the table at once (Bonferroni). `p` is exact and
    paired, `q` adjusted over the judged groups. Groups below the smallest size have numbers and no `q`,
    bounds or verdict.
    """

    group: Group
    n: int
    accuracy_before: float
    accuracy_after: float
    broken: int
    fixed: int
    moved: int
    net: float
    nfr: float
    p: float
    mde: float | None
    q: float | None
    interval: Interval | None
    nfr_upper: float | None
    verdict: Literal["better", "worse", "no difference shown"] | None


@dataclass(frozen=True)
class WorstGroup:
    """The lowest over non-empty groups.

    `by_net` is the judged group that lost most, None when all are too small. `accuracy_before` and
    `accuracy_after` are minima over groups, which may be different groups; `difference` is after minus
    before. Intervals are paired bootstraps of the minima themselves.
    """

    n_groups: int
    n_judged: int
    by_net: GroupRow | None
    accuracy_before: float
    accuracy_after: float
    difference: float
    accuracy_after_interval: Interval
    difference_interval: Interval


def group_values(name: str, values: Sequence[Any] | NDArray[Any], n: int) -> Texts:
    """A column as text; "" (from None or blank) means that the image is in no group. Raises InvalidInput."""
    check_length(f"group column {name!r}", values, n)
    return np.array(["" if v is None else str(v) for v in values], dtype=np.str_)


def members_of(columns: Mapping[str, Texts]) -> list[Members]:
    """Every non-empty group of every column with its images; columns in their order, values sorted."""
    groups: list[Members] = []
    for name, values in columns.items():
        found, ids = np.unique(values, return_inverse=True)
        for value, images in zip(found, split_by(ids, len(found)), strict=True):
            if value != "":
                groups.append((Group((name,), (str(value),)), images))
    return groups


def split_by(ids: Int[np.ndarray, " n"], n_ids: int) -> list[Int[np.ndarray, " _"]]:
    """The images of every id 0 .. n_ids-1, ascending."""
    order = np.argsort(ids, kind="stable")
    return np.split(order, np.cumsum(np.bincount(ids, minlength=n_ids))[:-1])


def group_table(
    groups: Sequence[Members],
    outcome: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None,
    spec: Specification,
) -> tuple[GroupRow, ...]:
    """A row per group over labelled images given as `flips.outcomes`, in the order of `groups`."""
    groups = [(g, images) for g, images in groups if len(images)]
    judged = [len(images) >= spec.min_group_size for _, images in groups]
    inside = [None if clusters is None else clusters[images] for _, images in groups]
    ps = [paired_p(outcome[images], c)[0] for (_, images), c in zip(groups, inside, strict=True)]
    qs = np.full(len(groups), np.nan)
    chosen = np.flatnonzero(judged)
    qs[chosen] = adjust(np.array([ps[i] for i in chosen]), spec.false_discovery)
    level = simultaneous_level(1 - spec.alpha, len(chosen))
    rows = []
    for i, (group, images) in enumerate(groups):
        here = outcome[images]
        table = table_of_outcomes(here)
        interval = net_interval(here, inside[i], level) if judged[i] else None
        verdict: Literal["better", "worse", "no difference shown"] | None = None
        if judged[i]:
            shown = qs[i] <= spec.alpha and table.net != 0
            verdict = "no difference shown" if not shown else "better" if table.net > 0 else "worse"
        rows.append(
            GroupRow(
                group=group,
                n=table.n,
                accuracy_before=table.accuracy_before,
                accuracy_after=table.accuracy_after,
                broken=table.broken,
                fixed=table.fixed,
                moved=table.moved,
                net=table.net,
                nfr=table.nfr,
                p=ps[i],
                mde=minimum_detectable_effect(table.n, spec.discordant_share, spec.alpha, spec.power),
                q=float(qs[i]) if judged[i] else None,
                interval=interval,
                nfr_upper=rate_bound(here == BROKEN, inside[i], 1 - level).upper if judged[i] else None,
                verdict=verdict,
            )
        )
    return tuple(rows)


def worst_statistic(groups: Sequence[Members], outcome: Int[np.ndarray, " n"]) -> Statistic:
    """Statistic with two columns: the lowest accuracy over groups before, and after."""
    before = np.isin(outcome, (STILL_RIGHT, BROKEN))
    after = np.isin(outcome, (STILL_RIGHT, FIXED))
    return worst_of(
        np.column_stack([before, after]).astype(np.float64), [images for _, images in groups if len(images)]
    )


def worst_group(
    rows: Sequence[GroupRow],
    point: Float[np.ndarray, " two"],
    draws: Float[np.ndarray, "n_resamples two"],
    level: float,
) -> WorstGroup:
    """The worst of `rows`; `point` and `draws` are `worst_statistic` of their groups, here and resampled."""
    judged = [r for r in rows if r.verdict is not None]
    return WorstGroup(
        n_groups=len(rows),
        n_judged=len(judged),
        by_net=min(judged, key=lambda r: r.net, default=None),
        accuracy_before=float(point[0]),
        accuracy_after=float(point[1]),
        difference=float(point[1] - point[0]),
        accuracy_after_interval=percentile_interval(draws[:, 1], level),
        difference_interval=percentile_interval(draws[:, 1] - draws[:, 0], level),
    )
