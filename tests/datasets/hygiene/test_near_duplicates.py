"""The bucketed search against brute force, and clusters against a graph search."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.datasets.hygiene.near_duplicates import (
    _masks,
    cosine_clusters,
    cosine_links,
    hash_clusters,
    merge,
    near_pairs,
)
from fulcrum.domain.errors import ComputationFailed, InvalidSettings


def brute_force(hashes, radius):
    return [
        (a, b)
        for a, b in itertools.combinations(range(len(hashes)), 2)
        if bin(int(hashes[a]) ^ int(hashes[b])).count("1") <= radius
    ]


def components(n, pairs):
    """Smallest member of each connected component."""
    a, b = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = scipy.sparse.coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n))
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    first = {}
    return [first.setdefault(c, i) for i, c in enumerate(label)]


@st.composite
def clustered_hashes(draw):
    """Words with many near neighbours: a few bases, each with some bits turned."""
    bases = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    words = []
    for _ in range(draw(st.integers(1, 25))):
        word = draw(st.sampled_from(bases))
        for bit in draw(st.lists(st.integers(0, 63), max_size=8)):
            word ^= 1 << bit
        words.append(word)
    return np.array(words, dtype=np.uint64)


@settings(max_examples=60, deadline=None)
@given(clustered_hashes(), st.integers(0, 10))
def test_near_pairs_are_those_of_brute_force(hashes, radius):
    a, b = near_pairs(hashes, radius)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == brute_force(hashes, radius)


@settings(max_examples=50, deadline=None)
@given(clustered_hashes(), st.integers(0, 10))
def test_hash_clusters_are_the_connected_components(hashes, radius):
    assert hash_clusters(hashes, radius).tolist() == components(len(hashes), brute_force(hashes, radius))


@pytest.mark.parametrize("radius", [1, 4, 6, 16])
@pytest.mark.parametrize("n", [10, 10**6])
def test_whatever_the_number_of_pieces_no_radius_can_hide_from_all_masks(radius, n):
    # Pigeonhole, checked with the worst case: one turned bit in each of `radius` different pieces.
    masks = [int(m) for m in _masks(radius, n)]
    edges = sorted(
        {bit for m in masks for bit in range(64) if (m >> bit & 1) != (m >> (bit - 1) & 1 if bit else 0)}
    )
    starts = sorted({0, *edges})
    for chosen in itertools.islice(itertools.combinations(starts, min(radius, len(starts))), 300):
        turned = sum(1 << bit for bit in chosen)
        assert any(m & turned == 0 for m in masks)


def test_a_turned_down_pair_is_not_joined():
    hashes = np.array([0, 0, 1, 2**40 - 1], dtype=np.uint64)
    asked = []

    def confirm(a, b):
        asked.extend(zip(a.tolist(), b.tolist(), strict=True))
        return (a != 0) & (b != 0)

    assert hash_clusters(hashes, 2, confirm=confirm).tolist() == [0, 1, 1, 3]
    assert all(3 not in pair for pair in asked)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 20), st.data())
def test_merging_joins_what_is_connected(n, data):
    number = st.integers(0, n - 1)
    pairs = data.draw(st.lists(st.tuples(number, number), max_size=25))
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    half = len(a) // 2
    labels = merge(merge(np.arange(n), a[:half], b[:half]), a[half:], b[half:])
    assert labels.tolist() == components(n, pairs)


def test_a_long_chain_is_one_cluster():
    n = 5000
    order = np.random.default_rng(0).permutation(n)
    assert merge(np.arange(n), order[:-1], order[1:]).tolist() == [0] * n


@pytest.mark.parametrize("chunk", [3, 7, 100])
def test_embedding_clusters_are_those_of_the_full_cosine_matrix(chunk):
    rng = np.random.default_rng(4)
    embeddings = rng.normal(size=(8, 6))[rng.integers(0, 8, 40)] + 0.15 * rng.normal(size=(40, 6))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [(a, b) for a, b in itertools.combinations(range(40), 2) if unit[a] @ unit[b] >= 0.95]
    assert 0 < len(pairs) < 300
    found = cosine_clusters(embeddings, np.arange(40), 0.95, chunk=chunk)
    assert found.tolist() == components(40, pairs)


@pytest.mark.parametrize("chunk", [3, 7, 100])
def test_the_nearest_image_is_the_most_similar_one_that_the_labels_had_not_joined(chunk):
    rng = np.random.default_rng(7)
    embeddings = rng.normal(size=(6, 5))[rng.integers(0, 6, 45)] + 0.2 * rng.normal(size=(45, 5))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit @ unit.T
    given = merge(np.arange(45), np.arange(0, 10), np.arange(1, 11))  # the first eleven are copies by hash
    told = []
    found = cosine_links(embeddings, given, 0.95, chunk, lambda done, total: told.append((done, total)))
    for i in range(45):
        others = [j for j in range(45) if given[j] != given[i] and cosine[i, j] >= 0.95]
        best = max(others, key=lambda j: cosine[i, j], default=-1)
        assert found.nearest[i] == best
        assert found.cosines[i] == pytest.approx(cosine[i, best] if others else 0.0, abs=1e-6)
    first, second, cosines = (c.tolist() for c in found.pairs())
    assert 5 < len(first) < 45
    assert all(given[a] != given[b] and a < b for a, b in zip(first, second, strict=True))
    assert len(set(zip(first, second, strict=True))) == len(first)
    assert cosines == sorted(cosines, reverse=True)
    joined = [(a, b) for a, b in itertools.combinations(range(45), 2) if cosine[a, b] >= 0.95]
    assert found.labels.tolist() == components(45, joined + [(i, i + 1) for i in range(10)])
    assert told[-1] == (45, 45)


def test_equal_embeddings_are_joined_at_a_cosine_of_one():
    row = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    assert cosine_clusters(np.repeat(row, 3, axis=0), np.arange(3), 1.0).tolist() == [0, 0, 0]


def test_embeddings_without_direction_and_impossible_settings_are_refused():
    with pytest.raises(ComputationFailed, match="first: image 1"):
        cosine_clusters(np.array([[1.0, 0.0], [0.0, 0.0]]), np.arange(2))
    with pytest.raises(InvalidSettings, match="radius"):
        near_pairs(np.zeros(2, dtype=np.uint64), 17)
    with pytest.raises(InvalidSettings, match="min_cosine"):
        cosine_clusters(np.ones((2, 2)), np.arange(2), 0.0)
