import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import ComputationFailed, InvalidInput, InvalidSettings
from fulcrum.science.validation.bootstrap import (
    PairedBootstrap,
    mean_of,
    on_the_sample,
    percentile_interval,
    quantile_of,
    worst_of,
)

RNG = np.random.default_rng(0)


def weights(n: int, b: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(b)]).astype(float)


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    bootstrap = PairedBootstrap(30, n_resamples=50)
    drawn = np.concatenate(list(bootstrap.weights()))
    assert drawn.shape == (50, 30)
    assert (drawn.sum(axis=1) == 30).all()


def test_the_same_seed_gives_the_same_draws_and_another_seed_others() -> None:
    values = RNG.random((40, 1))
    one, same, other = (
        PairedBootstrap(40, n_resamples=100, seed=s).draws(mean_of(values))[0] for s in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_clusters_are_drawn_whole() -> None:
    clusters = np.array([0, 0, 1, 2, 2, 2])
    for drawn in PairedBootstrap(6, clusters, n_resamples=40).weights():
        assert (drawn[:, 0] == drawn[:, 1]).all()
        assert (drawn[:, 3] == drawn[:, 5]).all()
        assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.random((25, 2))
    whole = PairedBootstrap(25, n_resamples=60).draws(mean_of(values))[0]
    monkeypatch.setattr("fulcrum.science.validation.bootstrap.WEIGHTS_PER_CHUNK", 90)
    assert PairedBootstrap(25, n_resamples=60).draws(mean_of(values))[0] == pytest.approx(whole, rel=1e-12)


@given(st.integers(5, 300), st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_weighted_quantile_is_that_of_the_repeated_images(n: int, q: float, seed: int) -> None:
    values = np.round(np.random.default_rng(seed).random(n), 2)
    drawn = weights(n, seed=seed)
    got = quantile_of(values, q)(drawn)[:, 0]
    expected = [np.quantile(np.repeat(values, row.astype(int)), q, method="inverted_cdf") for row in drawn]
    assert got.tolist() == expected


def test_a_resample_far_from_the_sample_is_done_in_full() -> None:
    values = np.arange(2000.0)
    lopsided = np.zeros((2, 2000))
    lopsided[0, 3], lopsided[1, 1999] = 2000, 2000
    assert quantile_of(values, 0.5)(lopsided)[:, 0].tolist() == [3.0, 1999.0]


def test_quantile_and_mean_look_only_at_the_chosen_images() -> None:
    values = np.array([np.nan, 1.0, 2.0, 3.0, 100.0])
    among = np.array([False, True, True, True, False])
    assert on_the_sample(quantile_of(values, 0.5, among), 5).tolist() == [2.0]
    assert on_the_sample(mean_of(values[:, None], among), 5).tolist() == [2.0]


@given(st.integers(0, 6))
@settings(max_examples=7, deadline=None)
def test_the_worst_group_is_the_lowest_mean_of_the_repeated_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((40, 2))
    groups = [np.flatnonzero(rng.random(40) < 0.3) for _ in range(4)]
    drawn = weights(40, seed=seed)
    for row, got in zip(drawn, worst_of(values, groups)(drawn), strict=True):
        means = [
            [(row[g] * values[g, k]).sum() / row[g].sum() for g in groups if row[g].sum()] for k in range(2)
        ]
        assert got == pytest.approx([min(m) for m in means])


def test_a_group_missing_from_a_resample_is_not_the_worst() -> None:
    values = np.array([[0.9], [0.1]])
    drawn = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert worst_of(values, [np.array([0]), np.array([1])])(drawn)[:, 0].tolist() == [0.9, 0.1]


def test_intervals_of_a_mean_cover_it_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(200):
        sample = rng.exponential(size=(120, 1))
        (draws,) = PairedBootstrap(120, n_resamples=600, seed=trial).draws(mean_of(sample))
        covered += 1.0 in percentile_interval(draws[:, 0])
    assert 0.88 <= covered / 200 <= 0.99


def test_intervals_over_clusters_cover_where_those_over_copies_do_not() -> None:
    rng = np.random.default_rng(12)
    clusters = np.repeat(np.arange(60), 5)
    covered = naive = 0
    for trial in range(120):
        sample = np.repeat(rng.normal(size=60), 5)[:, None]
        (draws,) = PairedBootstrap(300, clusters, n_resamples=400, seed=trial).draws(mean_of(sample))
        (copies,) = PairedBootstrap(300, None, n_resamples=400, seed=trial).draws(mean_of(sample))
        covered += 0.0 in percentile_interval(draws[:, 0])
        naive += 0.0 in percentile_interval(copies[:, 0])
    assert covered / 120 >= 0.88
    assert naive / 120 <= 0.75


def test_a_statistic_that_most_resamples_cannot_answer_is_an_error_not_nan() -> None:
    (draws,) = PairedBootstrap(50, n_resamples=200).draws(mean_of(np.ones((50, 1)), np.arange(50) == 0))
    assert np.isnan(draws).any()
    with pytest.raises(ComputationFailed, match="too few images"):
        percentile_interval(draws[:, 0])


def test_bootstraps_of_nothing_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="n=0"):
        PairedBootstrap(0)
    with pytest.raises(InvalidInput, match="3 values for 4 images"):
        PairedBootstrap(4, np.arange(3))
    with pytest.raises(InvalidInput, match="quantile of no images"):
        quantile_of(np.ones(3), 0.5, np.zeros(3, dtype=bool))
    with pytest.raises(InvalidInput, match="no groups"):
        worst_of(np.ones((3, 1)), [])
