import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.efficacy import harmonic_score, measure_efficacy


def bits(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


def test_e_g_coverage_and_specificity_count_the_right_images() -> None:
    #                        found    unseen target  neighbours
    measured = measure_efficacy(
        right_before=bits("0001" + "00000011" + "1111" + "11"),
        right_after=bits("1101" + "11001011" + "1110" + "01"),
        target=bits("1111" + "11111111" + "0000" + "00"),
        found_on=bits("1111" + "00000000" + "0000" + "00"),
        evaluated=bits("0000" + "11111111" + "1111" + "11"),
        condition_met=bits("1111" + "11100111" + "1111" + "11"),
        same_class_without_cue=bits("0000" + "00000000" + "1111" + "00"),
        same_cue_legitimate=bits("0000" + "00000000" + "0000" + "11"),
    )
    assert (measured.efficacy.count, measured.efficacy.n) == (2, 3)  # the fourth was right already
    assert (measured.generalisation.count, measured.generalisation.n) == (2, 4)
    assert (measured.n_base_right, measured.n_condition_off) == (2, 2)
    assert (measured.coverage.count, measured.coverage.n) == (4, 8)
    assert (measured.fixed_of_failures.count, measured.fixed_of_failures.n) == (3, 6)
    assert measured.same_class_without_cue.share == 0.75
    assert measured.same_cue_legitimate.share == 0.5
    assert measured.specificity == 0.5
    assert measured.score == pytest.approx(stats.hmean([2 / 3, 1 / 2, 1 / 2]))


def test_an_image_that_the_base_model_has_right_is_not_executed_rather_than_failed() -> None:
    everyone = np.ones(10, dtype=bool)
    measured = measure_efficacy(everyone, everyone, everyone, ~everyone, everyone, everyone, None, None)
    assert measured.generalisation.share is None
    assert measured.coverage.share == 0.0
    assert measured.n_base_right == 10
    assert measured.score is None


def test_an_image_cannot_be_both_found_on_and_unseen() -> None:
    one = np.ones(1, dtype=bool)
    with pytest.raises(InvalidInput, match="cannot count as unseen"):
        measure_efficacy(one, one, one, one, one, one, None, None)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_score_is_the_harmonic_mean(shares: list[float]) -> None:
    assert harmonic_score(*shares) == pytest.approx(stats.hmean(shares))


def test_the_score_is_nothing_if_anything_is_nothing_and_missing_if_anything_is_missing() -> None:
    assert harmonic_score(0.9, 0.0, 0.8) == 0.0
    assert harmonic_score(0.9, None, 0.0) is None
    with pytest.raises(InvalidInput):
        harmonic_score(1.2)
