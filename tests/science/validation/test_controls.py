import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.science.validation.controls import (
    against_controls,
    check_controls,
    control_gate,
    gains_of_predictions,
    rank_p,
)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=50), st.integers(-6, 6))
@settings(max_examples=40, deadline=None)
def test_the_rank_p_counts_controls_at_least_as_good(controls: list[int], value: int) -> None:
    expected = (1 + sum(c >= value for c in controls)) / (1 + len(controls))
    assert rank_p(float(value), np.array(controls, dtype=float)) == pytest.approx(expected)


def test_five_of_a_hundred_controls_as_good_are_too_many_and_four_are_not() -> None:
    for n_as_good, exceeded in ((4, True), (5, False)):
        gains = np.array([0.0] * (100 - n_as_good) + [0.3] * n_as_good)
        result = against_controls("matched_latents", 0.2, gains)
        assert result.exceeded is exceeded
        assert (result.p <= 0.05) is exceeded


def test_equal_to_the_95th_percentile_is_not_above_it() -> None:
    result = against_controls("random_directions", 0.1, np.full(100, 0.1))
    assert not result.exceeded
    assert result.p == 1.0


def test_a_correction_that_is_just_another_push_passes_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    passed = np.mean([against_controls("x", g[0], g[1:]).exceeded for g in rng.normal(size=(4000, 101))])
    assert passed == pytest.approx(5 / 101, abs=0.012)


def test_the_gate_needs_a_hundred_controls_and_every_kind_exceeded() -> None:
    low, high = np.zeros(100), np.full(100, 0.5)
    few = against_controls("next_latents", 0.2, high[:8])
    good, bad = (
        against_controls("matched_latents", 0.2, low),
        against_controls("random_directions", 0.2, high),
    )
    assert control_gate((good, few), 100).state == "pass"
    assert control_gate((good, bad), 100).state == "fail"
    assert control_gate((few,), 100).state == "undecided"
    undecided = control_gate((), 100)
    assert undecided.state == "undecided"
    assert "at least 100" in undecided.reason


def test_gains_are_counted_from_predictions_on_the_same_images() -> None:
    labels, base = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    controls = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    assert gains_of_predictions(labels, base, controls).tolist() == [0.5, -0.5, 0.0]


def test_impossible_controls_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no controls"):
        against_controls("x", 0.1, np.array([]))
    with pytest.raises(ComputationFailed, match="nan"):
        against_controls("x", 0.1, np.array([np.nan]))
    with pytest.raises(InvalidInput, match="within"):
        check_controls({"x": np.array([22.0])})  # points instead of shares
    with pytest.raises(InvalidInput, match="shape"):
        check_controls({"x": np.zeros((2, 2))})
