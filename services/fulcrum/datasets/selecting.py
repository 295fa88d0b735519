"""Images chosen by their columns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidDataset
from fulcrum.domain.jobs import Where


def mask_where(dataset: Dataset, where: Sequence[Where]) -> NDArray[np.bool_]:
    """(n,) images for which all conditions hold; all of them without any.

    Raises InvalidDataset for a column or value that does not occur, and when nothing fulfils all of them.
    """
    mask = np.ones(len(dataset), dtype=bool)
    for condition in where:
        found = np.zeros(len(dataset), dtype=bool)
        if condition.column == "label":
            found[dataset.numbers(label=condition.value)] = True
        else:
            found[dataset.numbers(**{condition.column.removeprefix("group_"): condition.value})] = True
        mask &= found
    if not mask.any():
        wanted = " and ".join(f"{w.column}={w.value}" for w in where)
        raise InvalidDataset(f"no image of {dataset.name!r} fulfils {wanted}")
    return mask
