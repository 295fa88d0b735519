import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.doses import Dose, dose_curve, pareto_front


def dose(gain: float, fix_rate: float, nfr_upper: float) -> Dose:
    return Dose(gain, fix_rate, nfr_upper / 2, nfr_upper, 0.5, 0.01)


def test_the_chosen_dose_fixes_most_before_harm_is_first_crossed() -> None:
    # Harm is not monotone: the strongest dose looks safe again and must not be chosen behind the crossing.
    curve = dose_curve(
        [dose(0.0, 0.9, 0.004), dose(0.2, 0.8, 0.03), dose(0.8, 0.2, 0.002), dose(0.5, 0.6, 0.006)]
    )
    assert [d.gain for d in curve.doses] == [0.8, 0.5, 0.2, 0.0]
    assert curve.first_harm is not None
    assert curve.first_harm.gain == 0.2
    assert curve.chosen is not None
    assert curve.chosen.gain == 0.5


def test_of_equally_good_doses_the_weaker_is_chosen() -> None:
    curve = dose_curve([dose(0.0, 0.6, 0.001), dose(0.5, 0.6, 0.001)])
    assert curve.chosen is not None
    assert curve.chosen.gain == 0.5
    assert curve.first_harm is None


def test_a_curve_that_harms_at_once_has_no_dose_to_choose() -> None:
    assert dose_curve([dose(3.0, 0.6, 0.2)]).chosen is None


def test_suppressing_and_amplifying_are_two_curves() -> None:
    with pytest.raises(InvalidInput, match="both sides of 1"):
        dose_curve([dose(0.5, 0.1, 0.0), dose(2.0, 0.1, 0.0)])
    with pytest.raises(InvalidInput, match="no doses"):
        dose_curve([])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_front_holds_exactly_the_points_that_no_other_beats(points: list[tuple[int, int]]) -> None:
    benefit, cost = (np.array(x, dtype=float) for x in zip(*points, strict=True))
    expected = [not any(b >= x and c <= y and (b > x or c < y) for b, c in points) for x, y in points]
    assert pareto_front(benefit, cost).tolist() == expected
