import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidDataset, InvalidInput
from fulcrum.science.validation.flips import OUTCOMES, FlipTable, flip_table, outcomes, predictions

triples = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60)


def table_by_hand(rows: list[tuple[int, int, int]]) -> FlipTable:
    """VALIDATION.md 1, one image at a time."""
    n11 = sum(a == y == b for y, a, b in rows)
    n10 = sum(a == y != b for y, a, b in rows)
    n01 = sum(a != y == b for y, a, b in rows)
    n00 = sum(a != y and b != y for y, a, b in rows)
    moved = sum(a != y and b != y and a != b for y, a, b in rows)
    return FlipTable(n11, n10, n01, n00, moved)


def columns(rows: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)]


@given(triples)
@settings(max_examples=60, deadline=None)
def test_the_table_equals_counting_one_image_at_a_time(rows: list[tuple[int, int, int]]) -> None:
    assert flip_table(*columns(rows), n_classes=4) == table_by_hand(rows)


@given(triples, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_images_does_not_matter(rows: list[tuple[int, int, int]], random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert flip_table(*columns(rows)) == flip_table(*columns(shuffled))


@given(triples)
@settings(max_examples=30, deadline=None)
def test_undoing_a_correction_swaps_fixed_and_broken(rows: list[tuple[int, int, int]]) -> None:
    labels, base, corrected = columns(rows)
    there, back = flip_table(labels, base, corrected), flip_table(labels, corrected, base)
    assert (there.fixed, there.broken, there.moved) == (back.broken, back.fixed, back.moved)
    assert there.net == -back.net


@given(triples)
@settings(max_examples=20, deadline=None)
def test_the_identity_correction_changes_nothing(rows: list[tuple[int, int, int]]) -> None:
    labels, base, _ = columns(rows)
    table = flip_table(labels, base, base)
    assert (table.changed, table.fixed, table.broken, table.net) == (0, 0, 0, 0.0)


def test_rates_are_those_of_the_definitions() -> None:
    table = FlipTable(still_right=70, broken=2, fixed=12, still_wrong=16, moved=3)
    assert table.n == 100
    assert table.changed == 17
    assert (table.pfr, table.nfr) == (0.12, 0.02)
    assert table.net == pytest.approx(0.10)
    assert (table.accuracy_before, table.accuracy_after) == (0.72, 0.82)
    # NFR / ((1 - ER_old) ER_new) with error rates .28 and .18
    assert table.relative_nfr == pytest.approx(0.02 / (0.72 * 0.18))
    assert table.fix_break_ratio == 12.5 / 2.5


def test_relative_nfr_has_no_value_where_nothing_can_be_broken() -> None:
    assert FlipTable(0, 0, 3, 4).relative_nfr is None


def test_unlabelled_images_are_only_changed_or_not() -> None:
    labels = np.array([-1, -1, -1, 0])
    table = flip_table(labels, np.array([0, 1, 1, 1]), np.array([0, 0, 1, 0]), n_classes=2)
    assert (table.n, table.n_unlabelled, table.changed_unlabelled, table.changed) == (1, 3, 1, 2)
    assert table.fixed == 1
    everything = flip_table(None, np.array([0, 1]), np.array([1, 1]))
    assert everything.changed == 1
    with pytest.raises(InvalidDataset, match="none of the 2 images is labelled"):
        _ = everything.nfr


def test_every_image_has_one_of_the_named_outcomes() -> None:
    codes = outcomes(
        np.array([0, 0, 0, 0, 0, -1, -1]), np.array([0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 2, 0, 1])
    )
    names = [OUTCOMES[i] for i in codes]
    assert names == ["still_right", "broken", "fixed", "still_wrong", "moved", "changed", "unchanged"]


def test_of_equal_logits_the_first_class_is_the_answer() -> None:
    assert predictions(np.array([[1.0, 1.0, 0.0]])).tolist() == [0]


def test_what_cannot_be_a_flip_table_is_refused() -> None:
    one = np.array([0])
    with pytest.raises(InvalidInput, match="2 values for 1 images"):
        flip_table(one, one, np.array([0, 1]))
    with pytest.raises(InvalidDataset, match=r"is 3: the class set has the classes 0 .. 1"):
        flip_table(np.array([3]), one, one, n_classes=2)
    with pytest.raises(InvalidDataset, match="no images"):
        flip_table(np.array([], dtype=np.int64), np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    with pytest.raises(InvalidInput, match="cannot be negative"):
        FlipTable(1, -1, 0, 0)
