import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import log_loss

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.bootstrap import on_the_sample
from fulcrum.science.validation.calibration import ece_of, probability_columns


def ece_by_hand(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, n_bins: int) -> float:
    """Equal-mass bins, image after image: each belongs to the bin in which the middle of its mass lies."""
    order = np.lexsort((right, confidence))
    total, below, gaps = weights.sum(), 0.0, np.zeros(n_bins)
    for i in order:
        if weights[i]:
            # The edge a middle lies on belongs to the bin above.
            at = int(np.floor((below + weights[i] / 2) * n_bins / total + 1e-12))
            gaps[at] += weights[i] * (right[i] - confidence[i])
            below += weights[i]
    return float(np.abs(gaps).sum() / total)


@given(st.integers(20, 200), st.sampled_from([2, 5, 15]), st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_ece_and_its_resamples_equal_the_slow_twin(n: int, n_bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = np.round(rng.random(n), 2), rng.random(n) < 0.6
    drawn = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(4)]).astype(float)
    drawn[0] = 1.0
    got = ece_of(confidence, right, n_bins)(drawn)[:, 0]
    assert got == pytest.approx([ece_by_hand(confidence, right, w, n_bins) for w in drawn])


def test_ece_of_equal_bins_is_the_textbook_one() -> None:
    rng = np.random.default_rng(0)
    confidence = np.sort(rng.random(150))
    right = rng.random(150) < confidence
    bins = np.arange(150).reshape(15, 10)
    textbook = np.mean([abs(right[b].mean() - confidence[b].mean()) for b in bins])
    assert on_the_sample(ece_of(confidence, right), 150)[0] == pytest.approx(textbook)


def test_a_calibrated_model_has_a_small_ece_and_an_overconfident_one_its_gap() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 0.9, 20_000)
    right = rng.random(20_000) < confidence
    assert on_the_sample(ece_of(confidence, right), 20_000)[0] < 0.02
    assert on_the_sample(ece_of(confidence + 0.1, right), 20_000)[0] == pytest.approx(0.1, abs=0.01)


@given(st.integers(0, 10))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_images_does_not_change_the_ece(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = np.round(rng.random(60), 1), rng.random(60) < 0.5
    order = rng.permutation(60)
    one = on_the_sample(ece_of(confidence, right), 60)
    other = on_the_sample(ece_of(confidence[order], right[order]), 60)
    assert one == pytest.approx(other)


def test_only_the_chosen_images_are_binned() -> None:
    confidence = np.array([0.1] * 20 + [0.9] * 5)
    right = np.ones(25, dtype=bool)
    among = np.arange(25) < 20
    assert on_the_sample(ece_of(confidence, right, 5, among), 25)[0] == pytest.approx(0.9)
    with pytest.raises(InvalidInput, match="15 equal-mass bins"):
        ece_of(confidence, right, 15, np.arange(25) < 9)


def test_log_loss_and_brier_are_the_usual_ones_at_the_temperature() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=3, size=(50, 4)), rng.integers(0, 4, 50)
    p = special.softmax(logits / 2.0, axis=1)
    columns = probability_columns(logits, labels, 2.0)
    assert columns.log_loss.mean() == pytest.approx(log_loss(labels, p, labels=range(4)))
    assert columns.brier == pytest.approx(((p - np.eye(4)[labels]) ** 2).sum(axis=1))
    assert columns.confidence == pytest.approx(p.max(axis=1))


def test_unlabelled_images_have_a_confidence_and_no_loss() -> None:
    columns = probability_columns(np.array([[1.0, 0.0]]), np.array([-1]), 1.0)
    assert columns.confidence[0] > 0.5
    assert np.isnan(columns.log_loss[0])
    assert np.isnan(columns.brier[0])
