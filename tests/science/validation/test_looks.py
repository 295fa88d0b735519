import numpy as np
import pytest

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.looks import Look, Looks
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.stale import Change, Subject, changes, is_stale

SUBJECT = Subject("correction", "dataset", "model", "sae", "1.0")


def look(correction: str, p: float = 0.5, split: str = "select", digest: str = "d") -> Look:
    return Look(correction, digest, split, p)  # type: ignore[arg-type]


def test_looks_at_select_are_counted_and_adjusted_over() -> None:
    looks = Looks()
    p = [0.001, 0.02, 0.3, 0.9]
    for i, value in enumerate(p):
        looks = looks.record(look(f"c{i}", value))
    q = adjust(np.array(p))
    for i, value in enumerate(p):
        selection = looks.selection(f"c{i}", "d")
        assert selection is not None
        assert (selection.n_looks, selection.n_corrections, selection.p) == (4, 4, value)
        assert selection.q == pytest.approx(q[i])


def test_looking_again_at_one_correction_counts_as_a_look_but_dilutes_nothing() -> None:
    looks = Looks().record(look("good", 0.001)).record(look("other", 0.04)).record(look("third", 0.6))
    before = looks.selection("other", "d")
    for _ in range(50):
        looks = looks.record(look("good", 0.001))
    after = looks.selection("other", "d")
    assert before is not None
    assert after is not None
    assert after.q == before.q
    assert (after.n_looks, after.n_corrections) == (53, 3)


def test_other_data_sets_and_splits_are_other_looks() -> None:
    looks = (
        Looks()
        .record(look("a", 0.01))
        .record(look("b", 0.01, digest="e"))
        .record(look("c", 0.01, "discover"))
    )
    selection = looks.selection("a", "d")
    assert selection is not None
    assert selection.n_looks == 1
    assert looks.selection("c", "d") is None


def test_confirm_is_sealed_until_its_first_look_and_says_how_often_it_was_opened() -> None:
    looks = Looks()
    assert looks.confirm_look("a", "d") == 1
    looks = looks.record(look("a", 0.01, "confirm"))
    assert looks.confirm_look("a", "d") == 2
    assert looks.confirm_look("b", "d") == 1
    assert looks.confirm_look("a", "another") == 1


def test_impossible_looks_are_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"p=1.2"):
        Looks().record(look("a", 1.2))


def test_a_verdict_goes_stale_when_any_part_of_its_subject_changes() -> None:
    assert not is_stale(SUBJECT, SUBJECT)
    for part in ("correction_sha256", "dataset_digest", "model_sha256", "sae_sha256", "code_version"):
        now = Subject(**{**SUBJECT.__dict__, part: "new"})
        assert is_stale(SUBJECT, now)
        assert changes(SUBJECT, now) == (Change(part, getattr(SUBJECT, part), "new"),)
