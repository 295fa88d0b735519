import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.concepts.statistics import (
    QUANTILE_RELATIVE_ERROR,
    LatentStatistics,
    StreamingStatistics,
)

from .codes_of import codes, dense, seeds


def one_pass(z: np.ndarray, tokens: int, has_cls: bool = True) -> LatentStatistics:
    statistics = StreamingStatistics(z.shape[1], tokens, has_cls)
    statistics.update(SparseCodes.from_dense(z))
    return statistics.result()


def assert_same_bits(a: LatentStatistics, b: LatentStatistics) -> None:
    assert (a.n_images, a.n_tokens) == (b.n_images, b.n_tokens)
    for name in (
        "n_images_active",
        "n_tokens_active",
        "n_cls_active",
        "max",
        "sum",
        "bin_keys",
        "bin_counts",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 8), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_statistics_equal_the_definition_on_the_dense_array(seed, n_images, tokens, d_sae, has_cls):
    z = dense(seed, n_images * tokens, d_sae)
    s = one_pass(z, tokens, has_cls)
    per_image = z.reshape(n_images, tokens, d_sae).astype(np.float64)
    for j in range(d_sae):
        active = per_image[..., j][per_image[..., j] > 0]
        assert s.fired[j] == (len(active) > 0)
        assert s.firing_rate_tokens[j] == pytest.approx((per_image[..., j] > 0).mean())
        assert s.firing_rate_images[j] == pytest.approx((per_image[..., j] > 0).any(axis=1).mean())
        assert s.max[j] == per_image[..., j].max()
        assert s.sum[j] == pytest.approx(math.fsum(active), rel=1e-14)
        assert s.mean[j] == pytest.approx(per_image[..., j].mean(), rel=1e-12)
        assert s.mean_when_active[j] == pytest.approx(active.mean() if len(active) else 0.0, rel=1e-12)
        n_cls = (per_image[:, 0, j] > 0).sum() if has_cls else 0
        assert s.cls_share[j] == pytest.approx(n_cls / len(active) if len(active) else 0.0)
        assert s.cls_share[j] + s.patch_share[j] == pytest.approx(1.0 if len(active) else 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(2.0**-126, 2.0**127, width=32), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.07, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_quantiles_are_the_nearest_rank_to_the_stated_relative_error(values, q):
    s = one_pass(np.array(values, dtype=np.float32)[:, None], tokens=1)
    n = len(values)
    rank = next(k for k in range(1, n + 1) if round(k / n, 12) >= q)
    true = sorted(values)[rank - 1]
    assert s.quantile(q)[0] == pytest.approx(true, rel=QUANTILE_RELATIVE_ERROR * (1 + 1e-9))


def test_quantiles_agree_with_numpy_on_many_values():
    z = dense(3, 5000, 4, density=0.7)
    s = one_pass(z, tokens=5)
    for q in (0.5, 0.9, 0.99):
        true = [np.quantile(z[z[:, j] > 0, j], q, method="inverted_cdf") for j in range(4)]
        np.testing.assert_allclose(s.quantile(q), true, rtol=QUANTILE_RELATIVE_ERROR)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 9), st.data())
def test_shards_in_any_order_give_the_bits_of_one_pass(seed, n_images, data):
    z = dense(seed, n_images * 3, 5)
    whole = one_pass(z, 3)
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n_images, max_size=n_images)))
    order = data.draw(st.permutations([0, 1, 2]))
    merged = StreamingStatistics(5, 3, True)
    for shard in order:
        part = StreamingStatistics(5, 3, True)
        for image in np.flatnonzero(owner == shard):
            part.update(SparseCodes.from_dense(z[image * 3 : image * 3 + 3]))
        merged.merge(StreamingStatistics.from_arrays(part.to_arrays()))
    assert_same_bits(merged.result(), whole)


def test_compaction_between_batches_changes_nothing(monkeypatch):
    z = dense(5, 300, 7)
    whole = one_pass(z, 3)
    monkeypatch.setattr("fulcrum.science.concepts.statistics._PENDING_LIMIT", 10)
    parts = StreamingStatistics(7, 3, True)
    for start in range(0, 300, 30):
        parts.update(SparseCodes.from_dense(z[start : start + 30]))
    assert_same_bits(parts.result(), whole)


def test_merging_leaves_the_other_shard_as_it_was():
    a, b = StreamingStatistics(4, 1, False), StreamingStatistics(4, 1, False)
    a.update(codes(0, 6, 4))
    b.update(codes(1, 6, 4))
    before = b.result()
    a.merge(b)
    a.update(codes(2, 6, 4))
    assert_same_bits(b.result(), before)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
def test_a_histogram_counts_every_value_once_between_its_edges(seed, bins_per_octave):
    z = dense(seed, 200, 3, density=0.5)
    s = one_pass(z, 1)
    for j in range(3):
        values = z[z[:, j] > 0, j]
        h = s.histogram(j, bins_per_octave)
        np.testing.assert_array_equal(np.histogram(values, bins=h.edges)[0], h.counts)
        assert h.counts.sum() == len(values)
        assert h.counts[0] > 0
        assert h.counts[-1] > 0


def test_the_largest_float_has_a_bin():
    top = np.finfo(np.float32).max
    s = one_pass(np.array([[top], [1.0]], dtype=np.float32), 1)
    assert s.max[0] == top
    assert s.quantile(1.0)[0] == pytest.approx(float(top), rel=QUANTILE_RELATIVE_ERROR)
    assert s.histogram(0, 1).counts.sum() == 2
    assert np.isfinite(s.histogram(0).edges).all()


def test_a_dead_latent_is_marked_and_has_no_histogram():
    z = np.zeros((4, 2), dtype=np.float32)
    z[:, 0] = 1.0
    s = one_pass(z, 2)
    assert s.fired.tolist() == [True, False]
    assert s.quantile(0.99).tolist() == [1.0, 0.0]
    assert len(s.histogram(1).counts) == 0
    silent = one_pass(np.zeros((4, 2), dtype=np.float32), 2)
    assert not silent.fired.any()
    assert silent.quantile(0.5).tolist() == [0.0, 0.0]


def test_senseless_requests_are_refused():
    s = StreamingStatistics(4, 2, True)
    with pytest.raises(InvalidInput, match="no images"):
        s.result()
    with pytest.raises(InvalidInput, match="d_sae"):
        s.update(codes(0, 4, 5))
    with pytest.raises(InvalidInput, match="whole images"):
        s.update(codes(0, 5, 4))
    with pytest.raises(InvalidInput, match="shards differ"):
        s.merge(StreamingStatistics(4, 2, False))
    s.update(codes(0, 4, 4))
    with pytest.raises(InvalidInput):
        s.result().quantile(1.5)
    with pytest.raises(LatentOutOfRange):
        s.result().histogram(4)
    with pytest.raises(InvalidInput):
        s.result().histogram(0, 3)
    with pytest.raises(InvalidInput):
        StreamingStatistics(0, 1, True)


def test_a_refused_batch_leaves_no_trace():
    s = StreamingStatistics(4, 2, True)
    s.update(codes(0, 4, 4))
    before = s.result()
    with pytest.raises(InvalidInput):
        s.update(codes(1, 5, 4))
    assert_same_bits(s.result(), before)
