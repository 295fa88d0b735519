"""Slices of a data set.

Values of columns, products of two columns, and a search for slices in which flips gather.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.arrays import check_length
from fulcrum.science.validation.groups import (
    Group,
    GroupRow,
    Members,
    Texts,
    group_table,
    members_of,
    split_by,
)
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.specification import Specification


@dataclass(frozen=True)
class FoundSlice:
    """A slice in which an event (broken, fixed, moved) is more frequent than elsewhere.

    `rate` inside against `rate_outside`; `p` is the one-sided exact (Fisher) p value of the gathering, `q`
    adjusted over all slices that were searched. Found here means to be confirmed elsewhere: q covers the
    search, not a second look.
    """

    group: Group
    n: int
    n_events: int
    rate: float
    rate_outside: float
    p: float
    q: float


def bin_covariate(values: Float[np.ndarray, " n"], n_bins: int = 4) -> Texts:
    """A `covariate_*` column as quantile bins named by their range; nan is in no bin. Equal edges merge."""
    if n_bins < 2:
        raise InvalidSettings(f"n_bins={n_bins}: at least 2")
    known = ~np.isnan(values)
    binned = np.full(len(values), "", dtype="<U64")
    if not known.any():
        return binned
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, n_bins + 1)))
    if len(edges) == 1:
        binned[known] = f"{edges[0]:.4g}"
        return binned
    place = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, len(edges) - 2)
    names = [f"{a:.4g} .. {b:.4g}" for a, b in itertools.pairwise(edges)]
    binned[known] = np.array(names)[place]
    return binned


def slices_of(columns: Mapping[str, Texts], order: int = 2, min_size: int = 1) -> list[Members]:
    """Slices from single columns, and with `order` 2 from all pairs of columns.

    At least `min_size` images each. A product that holds exactly the images of one of its factors says
    nothing new and is left out.
    """
    if order not in (1, 2):
        raise InvalidSettings(f"order={order}: slices come from 1 or 2 columns")
    found = [(g, images) for g, images in members_of(columns) if len(images) >= min_size]
    if order == 1:
        return found
    coded = {name: np.unique(values, return_inverse=True) for name, values in columns.items()}
    for (first, (values, ids)), (second, (others, other_ids)) in itertools.combinations(coded.items(), 2):
        sizes, other_sizes = np.bincount(ids), np.bincount(other_ids)
        codes, places = np.unique(ids * len(others) + other_ids, return_inverse=True)
        for code, images in zip(codes, split_by(places, len(codes)), strict=True):
            i, j = divmod(int(code), len(others))
            if values[i] == "" or others[j] == "" or len(images) < min_size:
                continue
            if len(images) < min(sizes[i], other_sizes[j]):
                found.append((Group((first, second), (str(values[i]), str(others[j]))), images))
    return found


def slice_table(
    columns: Mapping[str, Texts],
    outcome: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None,
    spec: Specification,
    order: int = 2,
    extra: Sequence[Members] = (),
) -> tuple[GroupRow, ...]:
    """n, before, after, net, interval, p, q and MDE of every slice of `min_group_size` images or more.

    `extra` slices (image sets) are a family of their own: somebody may have picked them from the flips, and such a p
    must neither lower the q of the columns' slices nor widen their intervals. Smaller ones are shown without q.
    """
    for name, values in columns.items():
        check_length(f"column {name!r}", values, len(outcome))
    families = slices_of(columns, order, spec.min_group_size), extra
    return tuple(row for family in families for row in group_table(family, outcome, clusters, spec))


def find_slices(
    columns: Mapping[str, Texts],
    event: Bool[np.ndarray, " n"],
    min_size: int = 20,
    order: int = 2,
    method: Literal["bh", "by"] = "bh",
    extra: Sequence[Members] = (),
) -> tuple[FoundSlice, ...]:
    """Slices searched on a flip column (`event`: broken, fixed or moved), most surprising first.

    `extra` slices (a brushed set, a cluster of embeddings) join the family. Raises InvalidInput for lengths
    that differ.
    """
    n, total = len(event), int(event.sum())
    for name, values in columns.items():
        check_length(f"column {name!r}", values, n)
    groups = slices_of(columns, order, min_size) + [(g, x) for g, x in extra if len(x) >= min_size]
    if not groups:
        return ()
    sizes = np.array([len(images) for _, images in groups])
    hits = np.array([int(event[images].sum()) for _, images in groups])
    p = np.clip(np.asarray(stats.hypergeom.sf(hits - 1, n, total, sizes), dtype=np.float64), 0.0, 1.0)
    q = adjust(p, method)
    order_of = np.lexsort((-hits, p))
    return tuple(
        FoundSlice(
            group=groups[i][0],
            n=int(sizes[i]),
            n_events=int(hits[i]),
            rate=float(hits[i] / sizes[i]),
            rate_outside=float((total - hits[i]) / (n - sizes[i])) if sizes[i] < n else 0.0,
            p=float(p[i]),
            q=float(q[i]),
        )
        for i in order_of
    )
