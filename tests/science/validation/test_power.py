import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.intervals import (
    agresti_min_many,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from fulcrum.science.validation.mcnemar import mcnemar_exact_many
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.power import (
    images_for_clean_bound,
    images_for_effect,
    images_for_loss,
    images_for_rate,
    images_for_width,
    minimum_detectable_effect,
    worst_of_worthless,
)


@pytest.mark.parametrize(("n", "points"), [(1000, 1.98), (5000, 0.89), (50_000, 0.28)])
def test_minimum_detectable_effects_are_the_worked_figures(n: int, points: float) -> None:
    effect = minimum_detectable_effect(n)
    assert effect is not None
    assert 100 * effect == pytest.approx(points, abs=0.005)


@given(st.integers(200, 100_000), st.floats(0.01, 0.5), st.floats(0.01, 0.2), st.floats(0.55, 0.95))
@settings(max_examples=60, deadline=None)
def test_the_effect_solves_the_equation(n: int, psi: float, alpha: float, power: float) -> None:
    za, zb = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)

    def missing(d: float) -> float:
        return (za * psi**0.5 + zb * (psi - d * d) ** 0.5) ** 2 / d**2 - n

    effect = minimum_detectable_effect(n, psi, alpha, power)
    if missing(psi) > 0:
        assert effect is None
    else:
        assert effect == pytest.approx(optimize.brentq(missing, 1e-9, psi), rel=1e-6)
        needed = images_for_effect(effect, psi, alpha, power)
        assert needed is not None
        assert abs(needed - n) <= 1


def test_the_promised_power_is_there() -> None:
    effect = minimum_detectable_effect(1000)
    assert effect is not None
    rng = np.random.default_rng(0)
    fixed, broken = (0.05 + effect) / 2, (0.05 - effect) / 2
    draws = rng.multinomial(1000, [broken, fixed, 1 - fixed - broken], size=4000)
    found = (mcnemar_exact_many(draws[:, 0], draws[:, 1]) <= 0.05).mean()
    # The exact test is a little conservative, the formula is of the asymptotic one.
    assert 0.72 <= found <= 0.83


def test_fifty_images_show_no_effect_of_five_percent_flips() -> None:
    assert minimum_detectable_effect(56) is None


def test_no_number_of_images_finds_an_effect_of_nothing() -> None:
    assert images_for_effect(0.0, 0.05) is None


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="n=0"):
        minimum_detectable_effect(0)
    with pytest.raises(InvalidSettings, match="discordant_share=0"):
        minimum_detectable_effect(10, 0.0)
    with pytest.raises(InvalidSettings, match=r"power=0\.1"):
        minimum_detectable_effect(10, power=0.1)
    with pytest.raises(InvalidSettings, match="needs a discordant share"):
        images_for_effect(0.2, 0.1)


@pytest.mark.parametrize(("margin", "n"), [(0.01, 299), (0.05, 59), (0.005, 598)])
def test_the_fewest_unbroken_images_that_bound_the_nfr(margin: float, n: int) -> None:
    assert images_for_clean_bound(margin) == n
    assert clopper_pearson_upper(0, n) <= margin < clopper_pearson_upper(0, n - 1)


@given(st.floats(0, 0.05), st.floats(0.005, 0.05))
@settings(max_examples=40, deadline=None)
def test_the_images_for_a_rate_decide_and_one_less_does_not(rate: float, margin: float) -> None:
    needed = images_for_rate(rate, margin)
    if needed is None:
        assert abs(rate - margin) < 1e-3
        return

    def decided(n: int) -> bool:
        below = clopper_pearson_upper(rate * n, n) <= margin
        return below if rate < margin else clopper_pearson_lower(rate * n, n) > margin

    assert decided(needed)
    assert needed == 1 or not decided(needed - 1)


@given(st.floats(0, 0.05), st.floats(0, 0.05), st.floats(0.005, 0.05))
@settings(max_examples=40, deadline=None)
def test_the_images_for_a_loss_decide_and_one_less_does_not(
    broken: float, fixed: float, margin: float
) -> None:
    needed = images_for_loss(broken, fixed, margin, alpha=0.05, alpha_fail=0.01)
    if needed is None:
        assert abs(broken - fixed - margin) < 1e-3
        return

    def decided(n: int) -> bool:
        size = np.array([float(n)])
        inside = broken - fixed < margin
        low, high = agresti_min_many(broken * size, fixed * size, size, 0.9 if inside else 0.98)
        return bool(-low[0] <= margin if inside else -high[0] > margin)

    assert decided(needed)
    assert needed == 1 or not decided(needed - 1)


def test_an_interval_leaves_its_margin_with_the_square_of_its_width() -> None:
    # Half-width .02 at distance .01 must halve: four times the images.
    assert images_for_width(100, 0.01, -0.01, 0.03, 0.02) == 400
    assert images_for_width(100, 0.02, 0.0, 0.04, 0.02) is None


def test_fifty_worthless_corrections_on_one_set_make_the_best_look_good() -> None:
    """VALIDATION.md 2: +1.58 points, and some p < .05 in 85 of 100 labs."""
    rng = np.random.default_rng(7)
    labs, tries, n = 2000, 50, 1000
    discordant = rng.binomial(n, 0.05, size=(labs, tries))
    fixed = rng.binomial(discordant, 0.5)
    best = ((2 * fixed - discordant) / n).max(axis=1)
    p = mcnemar_exact_many((discordant - fixed).ravel(), fixed.ravel()).reshape(labs, tries)
    assert 100 * best.mean() == pytest.approx(1.58, abs=0.06)
    assert (p.min(axis=1) < 0.05).mean() == pytest.approx(0.85, abs=0.03)
    assert 100 * worst_of_worthless(n, tries) == pytest.approx(1.58, abs=0.02)
    # What counting the looks is for: with Benjamini-Hochberg over them the promise holds again.
    fooled = np.mean([adjust(row).min() <= 0.05 for row in p[:400]])
    assert fooled <= 0.07


def test_one_look_is_not_biased() -> None:
    assert worst_of_worthless(1000, 1) == 0.0
