import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.concepts.top_images import StreamingTopImages

from .codes_of import codes, dense, seeds


def slow_top(z: np.ndarray, numbers: np.ndarray, latent: int, n: int) -> list[tuple[int, float]]:
    firing = [(-z[i, latent], int(numbers[i])) for i in range(len(z)) if z[i, latent] > 0]
    return [(number, -score) for score, number in sorted(firing)[:n]]


def listed(top, latent):
    images, scores = top.of(latent)
    return list(zip(images.tolist(), scores.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 25), st.integers(1, 6), st.data())
def test_any_split_order_and_merge_gives_the_sorted_list_with_ties_by_number(seed, n_images, n, data):
    z = dense(seed, n_images, 4, density=0.7, levels=3)
    numbers = np.random.default_rng(seed).permutation(1000)[:n_images]
    owner = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n_images, max_size=n_images)))
    shards = []
    for s in range(4):
        shard = StreamingTopImages(4, n)
        for half in np.array_split(np.flatnonzero(owner == s), 2):
            shard.update(numbers[half], SparseCodes.from_dense(z[half]))
        shards.append(StreamingTopImages.from_arrays(shard.to_arrays()))
    merged = shards[0]
    for shard in shards[1:]:
        merged.merge(shard)
    top = merged.result()
    for j in range(4):
        expected = slow_top(z, numbers, j, n)
        assert listed(top, j) == expected
        assert top.counts[j] == len(expected)
        assert (top.images[j, len(expected) :] == -1).all()
        assert (top.scores[j, len(expected) :] == 0).all()


def test_compaction_between_batches_changes_nothing(monkeypatch):
    z = dense(1, 200, 5, levels=4)
    monkeypatch.setattr("fulcrum.science.concepts.top_images._PENDING_LIMIT", 8)
    streaming = StreamingTopImages(5, 3)
    order = np.random.default_rng(0).permutation(200)
    for part in np.array_split(order, 25):
        streaming.update(part, SparseCodes.from_dense(z[part]))
    for j in range(5):
        assert listed(streaming.result(), j) == slow_top(z, np.arange(200), j, 3)


def test_by_mean_ranks_a_broad_weak_image_above_a_narrow_strong_one():
    tokens = np.zeros((8, 1), dtype=np.float32)
    tokens[0] = 3.0  # image 0: one strong token
    tokens[4:] = 1.0  # image 1: four weak ones
    both = SparseCodes.from_dense(tokens)
    firsts = []
    for how in ("max", "mean"):
        top = StreamingTopImages(1, 2)
        top.update(np.arange(2), both.per_image(4, how))
        firsts.append(listed(top.result(), 0))
    assert firsts == [[(0, 3.0), (1, 1.0)], [(1, 1.0), (0, 0.75)]]


def test_an_image_counted_twice_is_refused():
    a, b = StreamingTopImages(3, 5), StreamingTopImages(3, 5)
    a.update(np.arange(4), codes(0, 4, 3, density=1.0))
    b.update(np.arange(3, 7), SparseCodes.from_dense(dense(0, 4, 3, density=1.0)[[3, 0, 1, 2]]))
    a.merge(b)
    with pytest.raises(InvalidInput, match="image 3 was added twice"):
        a.result()


def test_senseless_requests_are_refused():
    top = StreamingTopImages(3, 2)
    with pytest.raises(InvalidInput, match="twice"):
        top.update(np.array([1, 1]), codes(0, 2, 3))
    with pytest.raises(InvalidInput, match="negative"):
        top.update(np.array([1, -1]), codes(0, 2, 3))
    with pytest.raises(InvalidInput):
        top.update(np.array([1, 2, 3]), codes(0, 2, 3))
    with pytest.raises(InvalidInput, match="d_sae"):
        top.update(np.array([1, 2]), codes(0, 2, 4))
    with pytest.raises(InvalidInput, match="shards differ"):
        top.merge(StreamingTopImages(3, 1))
    with pytest.raises(LatentOutOfRange):
        top.result().of(3)
    with pytest.raises(InvalidInput):
        StreamingTopImages(3, 0)


def test_nothing_added_is_an_empty_list():
    top = StreamingTopImages(3, 2).result()
    assert listed(top, 0) == []
    assert top.counts.tolist() == [0, 0, 0]
