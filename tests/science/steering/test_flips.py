import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum.science.steering.flips import first_bracket, narrow


@pytest.mark.parametrize(
    ("gains", "flipped", "expected"),
    [
        ([0, 0.5, 1, 2], [True, False, False, False], (0.5, 0)),
        ([0, 0.5, 1, 2], [True, True, False, False], (1, 0.5)),
        ([0, 0.5, 1, 2], [False, False, False, True], (1, 2)),
        ([0, 0.5, 1, 2], [False, False, False, False], None),
        ([0, 0.25, 0.5, 0.75], [True, False, True, False], (0.75, 0.5)),  # not monotone: the first one counts
        ([0, 2], [True, True], (1.0, 0)),  # equally near: the lower one; 1 itself is never flipped
        ([0, 1.5, 2], [True, True, True], (1.0, 1.5)),  # the nearer one
        ([2, 0, 1.5], [True, False, False], (1.5, 2)),  # any order
        ([], [], None),
    ],
)
def test_the_first_flip_walking_from_gain_1_is_bracketed(
    gains: list[float], flipped: list[bool], expected: tuple[float, float] | None
) -> None:
    assert first_bracket(gains, flipped) == expected


@given(st.floats(0.001, 0.999), st.floats(1e-4, 0.3), st.booleans())
def test_narrowing_holds_the_flip_within_the_tolerance(
    place: float, tolerance: float, downwards: bool
) -> None:
    if downwards:
        low, high = narrow((1.0, 0.0), lambda gains: [g <= place for g in gains], tolerance)
        assert low > place >= high
    else:
        low, high = narrow((0.0, 1.0), lambda gains: [g >= place for g in gains], tolerance)
        assert low < place <= high
    assert abs(high - low) <= tolerance


def test_narrowing_goes_on_in_the_first_of_several_flips() -> None:
    low, high = narrow((1.0, 0.0), lambda gains: [0.6 < g < 0.8 or g <= 0.1 for g in gains], 1e-3)
    assert low == pytest.approx(0.8, abs=1e-3)
    assert high < 0.8 <= low


def test_narrowing_asks_in_batches_and_ends_where_floating_point_ends() -> None:
    calls = []

    def flips(gains: list[float]) -> list[bool]:
        calls.append(len(gains))
        return [g >= 0.3 for g in gains]

    low, high = narrow((0.0, 1.0), flips, 1e-300)
    assert low < 0.3 <= high
    assert high - low < 1e-15
    assert set(calls) == {15}
    assert len(calls) < 20
