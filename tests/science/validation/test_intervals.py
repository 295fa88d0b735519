import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.science.validation.flips import FlipTable
from fulcrum.science.validation.intervals import (
    agresti_min,
    agresti_min_many,
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    effective_size,
    rate_bound,
    simultaneous_level,
)


def agresti_min_by_hand(table: FlipTable, level: float) -> tuple[float, float]:
    n11, n10, n01, n00 = (x + 0.5 for x in (table.still_right, table.broken, table.fixed, table.still_wrong))
    n = n11 + n10 + n01 + n00
    p10, p01 = n10 / n, n01 / n
    z = stats.norm.ppf(0.5 + level / 2)
    half = z * ((p10 + p01 - (p01 - p10) ** 2) / n) ** 0.5
    return max(-1.0, p01 - p10 - half), min(1.0, p01 - p10 + half)


@given(st.tuples(*[st.integers(0, 300)] * 4).filter(sum), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_agresti_min_is_wald_with_half_a_count_in_every_cell(cells: tuple[int, ...], level: float) -> None:
    interval = agresti_min(FlipTable(*cells), level)
    assert (interval.low, interval.high) == pytest.approx(agresti_min_by_hand(FlipTable(*cells), level))


@given(st.tuples(*[st.integers(0, 300)] * 4).filter(sum))
@settings(max_examples=30, deadline=None)
def test_swapping_broken_and_fixed_mirrors_the_interval(cells: tuple[int, ...]) -> None:
    a, b, c, d = cells
    there, back = agresti_min(FlipTable(a, b, c, d)), agresti_min(FlipTable(a, c, b, d))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize(
    ("psi_broken", "psi_fixed", "n"), [(0.02, 0.06, 100), (0.01, 0.01, 300), (0.0, 0.03, 200)]
)
def test_agresti_min_covers_the_true_difference_about_as_often_as_it_says(psi_broken, psi_fixed, n) -> None:
    rng = np.random.default_rng(1)
    draws = rng.multinomial(n, [psi_broken, psi_fixed, 1 - psi_broken - psi_fixed], size=20_000)
    low, high = agresti_min_many(draws[:, 0], draws[:, 1], np.full(len(draws), n))
    covered = ((low <= psi_fixed - psi_broken) & (psi_fixed - psi_broken <= high)).mean()
    assert 0.935 <= covered <= 1.0


@pytest.mark.parametrize(("n", "bound"), [(56, 0.052), (300, 0.0099), (598, 0.0050)])
def test_zero_broken_bounds_the_nfr_as_worked_out(n: int, bound: float) -> None:
    assert clopper_pearson_upper(0, n) == pytest.approx(bound, abs=5e-5 + 5e-4 * (n == 56))
    assert clopper_pearson_upper(0, n) == pytest.approx(1 - 0.05 ** (1 / n))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_clopper_pearson_equals_statsmodels(case: tuple[int, int]) -> None:
    count, n = case
    low, high = proportion_confint(count, n, alpha=0.1, method="beta")
    assert clopper_pearson_lower(count, n, 0.05) == pytest.approx(low)
    assert clopper_pearson_upper(count, n, 0.05) == pytest.approx(high)
    both = clopper_pearson(count, n, 0.9)
    assert (both.low, both.high) == pytest.approx((low, high))
    assert count / n in both


@pytest.mark.parametrize(("rate", "n"), [(0.01, 300), (0.05, 56), (0.3, 40)])
def test_the_upper_bound_is_exact_it_holds_at_least_as_often_as_it_says(rate: float, n: int) -> None:
    k = np.arange(n + 1)
    holds = np.array([clopper_pearson_upper(int(i), n) >= rate for i in k])
    assert stats.binom.pmf(k, n, rate)[holds].sum() >= 0.95


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(InvalidInput, match="5 of 3 is not a share"):
        clopper_pearson_upper(5, 3)
    with pytest.raises(InvalidInput, match="not a share"):
        clopper_pearson_upper(0, 0)
    with pytest.raises(InvalidSettings, match=r"alpha=1\.5"):
        clopper_pearson_upper(0, 3, 1.5)
    with pytest.raises(InvalidInput, match="no images"):
        rate_bound(np.array([], dtype=bool))


def test_simultaneous_intervals_share_their_error() -> None:
    assert simultaneous_level(0.95, 10) == pytest.approx(0.995)
    assert simultaneous_level(0.95, 0) == pytest.approx(0.95)


def test_simultaneous_intervals_hold_together() -> None:
    rng = np.random.default_rng(3)
    n_groups, n = 8, 120
    draws = rng.multinomial(n, [0.04, 0.06, 0.9], size=(4000, n_groups)).reshape(-1, 3)
    low, high = agresti_min_many(
        draws[:, 0], draws[:, 1], np.full(len(draws), n), simultaneous_level(0.95, n_groups)
    )
    all_hold = ((low <= 0.02) & (high >= 0.02)).reshape(-1, n_groups).all(axis=1).mean()
    assert all_hold >= 0.94


def test_independent_images_keep_their_number() -> None:
    assert effective_size(np.array([0.0, 1.0, 1.0]), None) == 3
    assert effective_size(np.array([0.0, 1.0, 1.0]), np.array([4, 5, 6])) == 3


def test_exact_copies_count_once() -> None:
    rng = np.random.default_rng(0)
    once = (rng.random(200) < 0.1).astype(float)
    size = effective_size(np.repeat(once, 5), np.repeat(np.arange(200), 5))
    assert size == pytest.approx(200, rel=0.01)


def test_without_any_broken_image_the_clusters_are_counted() -> None:
    bound = rate_bound(np.zeros(600, dtype=bool), np.repeat(np.arange(300), 2))
    assert bound.n_effective == 300
    assert bound.upper == pytest.approx(clopper_pearson_upper(0, 300))


def test_the_bound_of_copied_images_holds_as_often_as_it_says_and_the_naive_one_does_not() -> None:
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(150), 4)
    held = naive = 0
    for _ in range(300):
        hit = np.repeat(rng.random(150) < 0.05, 4)
        held += rate_bound(hit, clusters).upper >= 0.05
        naive += rate_bound(hit).upper >= 0.05
    assert held / 300 >= 0.92
    assert naive / 300 < 0.90
