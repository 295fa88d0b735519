import numpy as np
import pytest

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.confusion import changed_pairs, confusion, confusion_delta
from fulcrum.science.validation.interactions import interactions

LABELS = np.zeros(1000, dtype=np.int64)
BASE = np.zeros(1000, dtype=np.int64)


def breaking(*images: range) -> np.ndarray:
    predicted = BASE.copy()
    for part in images:
        predicted[part.start : part.stop] = 1
    return predicted


def test_what_a_pair_breaks_beyond_the_two_alone_is_the_interaction() -> None:
    a, b = breaking(range(10)), breaking(range(10, 30))
    both = breaking(range(100))
    (row,) = interactions(LABELS, BASE, {"A": a, "B": b}, {("A", "B"): both})
    assert (row.nfr_first, row.nfr_second, row.nfr_both) == (0.01, 0.02, 0.1)
    assert row.interaction == pytest.approx(0.07)
    assert row.net_interaction == pytest.approx(-0.07)
    assert 0.05 < row.interval.low < 0.07 < row.interval.high < 0.09


def test_corrections_that_add_up_do_not_interact() -> None:
    a, b = breaking(range(10)), breaking(range(10, 30))
    (row,) = interactions(LABELS, BASE, {"A": a, "B": b}, {("A", "B"): breaking(range(30))})
    assert (row.interaction, row.interval.low, row.interval.high) == (0.0, 0.0, 0.0)


def test_breaking_the_same_images_is_a_negative_interaction() -> None:
    a = breaking(range(10))
    (row,) = interactions(LABELS, BASE, {"A": a, "B": a}, {("A", "B"): a})
    assert row.interaction == pytest.approx(-0.01)


def test_unlabelled_images_stay_out() -> None:
    labels = LABELS.copy()
    labels[500:] = -1
    (row,) = interactions(labels, BASE, {"A": BASE, "B": BASE}, {("A", "B"): breaking(range(499, 1000))})
    assert row.n == 500
    assert row.interaction == pytest.approx(1 / 500)


def test_a_pair_of_unknown_corrections_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\['B'\]"):
        interactions(LABELS, BASE, {"A": BASE}, {("A", "B"): BASE})
    assert interactions(LABELS, BASE, {"A": BASE}, {}) == ()


def test_the_confusion_delta_is_clickable_arithmetic() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 4, 300)
    base, corrected = rng.integers(0, 4, (2, 300))
    delta = confusion_delta(labels, base, corrected, 4)
    for y in range(4):
        for k in range(4):
            now, was = (labels == y) & (corrected == k), (labels == y) & (base == k)
            assert delta[y, k] == now.sum() - was.sum()
    assert (delta.sum(axis=1) == 0).all()
    assert confusion(labels, base, 4).sum() == (labels != -1).sum()


def test_the_most_frequent_changes_come_first_with_what_they_did() -> None:
    labels = np.array([1, 1, 0, 0, 2, -1])
    base = np.array([0, 0, 0, 1, 0, 0])
    corrected = np.array([1, 1, 1, 0, 0, 1])
    first, second = changed_pairs(labels, base, corrected, ("a", "b", "c"))
    assert (first.before, first.after, first.n, first.fixed, first.broken) == ("a", "b", 4, 2, 1)
    assert (second.before, second.after, second.n, second.fixed, second.broken) == ("b", "a", 1, 1, 0)
    assert len(changed_pairs(labels, base, corrected, ("a", "b", "c"), most=1)) == 1
