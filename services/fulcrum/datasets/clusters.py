"""Images that do not count as independent: pairs, and duplicates where an import has found them."""

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.hygiene.near_duplicates import merge
from fulcrum.datasets.samples import Dataset


def clusters_of(dataset: Dataset) -> NDArray[np.int64]:
    """(n,) images share a number when they are of one pair, or duplicates, or linked through others that are."""
    numbers = np.arange(len(dataset), dtype=np.int64)
    labels = numbers
    columns = [dataset.pair_ids.tolist()]
    if dataset.duplicates:
        columns.append([dataset.duplicates.get(s.id, "") for s in dataset.samples])
    for column in columns:
        first: dict[str, int] = {}
        same = [first.setdefault(value, i) if value else i for i, value in enumerate(column)]
        labels = merge(labels, numbers, np.array(same, dtype=np.int64))
    return labels
