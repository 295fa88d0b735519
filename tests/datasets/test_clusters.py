"""Images that do not count as independent."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum.datasets.byte_sources import ByteHashes, FileSource
from fulcrum.datasets.clusters import clusters_of
from fulcrum.datasets.samples import Dataset, Sample


def dataset(pairs, duplicates):
    samples = tuple(Sample(f"{i:02d}", "x", pair_id=p) for i, p in enumerate(pairs))
    named = {f"{i:02d}": d for i, d in enumerate(duplicates) if d is not None}
    return Dataset("x", None, samples, (), ByteHashes(FileSource(None)), named)


names = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "c"]), st.sampled_from([None, "a", "b", "c"])),
    min_size=1,
    max_size=9,
)


@given(names)
def test_two_images_share_a_cluster_exactly_when_a_chain_of_pairs_and_duplicates_links_them(rows):
    n = len(rows)
    linked = np.eye(n, dtype=bool)
    for (i, one), (j, other) in itertools.product(enumerate(rows), repeat=2):
        linked[i, j] |= any(a is not None and a == b for a, b in zip(one, other, strict=True))
    for _ in range(n):
        linked = linked @ linked
    found = clusters_of(dataset([p for p, _ in rows], [d for _, d in rows]))
    np.testing.assert_array_equal(found[:, None] == found[None, :], linked)


@pytest.mark.parametrize("numbers", [[0, 2, 3], [1, 3]])
def test_a_part_of_a_data_set_keeps_its_clusters(numbers):
    whole = dataset([None] * 4, ["a", None, "b", "a"])
    part = clusters_of(whole.subset(numbers))
    all_of_it = clusters_of(whole)[numbers]
    np.testing.assert_array_equal(part[:, None] == part[None, :], all_of_it[:, None] == all_of_it[None, :])
