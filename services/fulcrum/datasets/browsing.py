"""Looking through a data set: images chosen by their columns, and how many there are of each value."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.datasets import CovariateBin, CovariateFacet, Facet, FacetCount
from fulcrum.domain.errors import InvalidDataset

Numbers = NDArray[np.int64]

MAX_VALUES: Final = 200  # of a facet: a group that names each image is no list to click on
_GROUP: Final = "group_"
_COVARIATE: Final = "covariate_"
_PLAIN: Final = ("label", "split", "pair_id")


def columns(dataset: Dataset) -> list[str]:
    """Names that `chosen` takes."""
    groups = [_GROUP + name for name in dataset.groups]
    return [*_PLAIN, *groups, *(_COVARIATE + name for name in dataset.covariates)]


def column(dataset: Dataset, name: str) -> NDArray[np.str_]:
    """(n,) texts, "" where there is none: `label`, `split`, `pair_id`, a group, a covariate's quarter.

    The prefix of a group may be left out. Raises InvalidDataset for another name.
    """
    match name:
        case "label":
            return dataset.labels
        case "split":
            return dataset.splits
        case "pair_id":
            return dataset.pair_ids
    if (covariate := name.removeprefix(_COVARIATE)) != name and covariate in dataset.covariates:
        return dataset.covariate_bins(covariate)
    found = dataset.groups.get(name.removeprefix(_GROUP))
    if found is None:
        raise InvalidDataset(f"no column {name[:80]!r} in {dataset.name!r}: it has {columns(dataset)[:40]}")
    return found


def chosen(dataset: Dataset, where: Sequence[tuple[str, str]], words: str | None = None) -> Numbers:
    """Numbers, ascending, of the images whose columns have these values ("": none) and whose id holds `words`.

    Empty when nothing does. Raises InvalidDataset for a column that is not there.
    """
    keep = np.ones(len(dataset), dtype=bool)
    for name, value in where:
        keep &= column(dataset, name) == value
    if words:
        wanted = words.casefold()
        keep &= np.array([wanted in s.id.casefold() for s in dataset.samples], dtype=bool)
    return np.flatnonzero(keep).astype(np.int64)


def facet(dataset: Dataset, name: str, numbers: Numbers) -> Facet:
    """Counts of a column with texts among these images."""
    counts = Counter(column(dataset, name)[numbers].tolist())
    # Equal counts by value, so that the same content always reads alike.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    n_values = len(counts) - ("" in counts)
    return Facet(name, tuple(FacetCount(v, n) for v, n in ordered[:MAX_VALUES]), n_values)


def group_facets(dataset: Dataset, numbers: Numbers) -> tuple[Facet, ...]:
    """`facet` of every group."""
    return tuple(facet(dataset, _GROUP + name, numbers) for name in dataset.groups)


def covariate_facets(dataset: Dataset, numbers: Numbers) -> tuple[CovariateFacet, ...]:
    """Ranges and quarters of every covariate that one of these images has; quarters are those of all images."""
    found = []
    for name, values in dataset.covariates.items():
        mine, bins = values[numbers], dataset.covariate_bins(name)[numbers]
        known = mine[np.isfinite(mine)]
        if known.size == 0:
            continue
        quarters = []
        for bin in sorted(set(bins.tolist()) - {""}):
            inside = mine[bins == bin]
            quarters.append(CovariateBin(bin, float(inside.min()), float(inside.max()), int(inside.size)))
        found.append(
            CovariateFacet(
                _COVARIATE + name,
                int(known.size),
                float(known.min()),
                float(known.max()),
                float(known.mean()),
                tuple(quarters),
            )
        )
    return tuple(found)
