"""Image sets in a validation: a row of the slice table each, and a gate for each invariant list."""

import dataclasses

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from tests.science.validation.world import World, world

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.image_sets import ImageSet
from fulcrum.science.validation.mcnemar import mcnemar_exact
from fulcrum.science.validation.per_image import per_image
from fulcrum.science.validation.report import ValidationReport, validate
from fulcrum.science.validation.specification import Specification

SPEC = Specification()
GATE = "invariant images keep their answer: "


def run(w: World, *sets: ImageSet, **more) -> ValidationReport:
    return validate(w.given(image_sets=sets, **more), SPEC)


def gate_of(report: ValidationReport, name: str):
    return {g.name: g for g in report.gates}[GATE + name]


def rows(w: World, *numbers: int):
    return np.isin(np.arange(len(w.labels)), numbers)


def changed_in(w: World, inside, judged) -> list[str]:
    """The slow twin: image by image, which answer is another one."""
    found = []
    for i in range(len(w.labels)):
        was, now = (max(range(4), key=lambda c, x=x: x[i, c]) for x in (w.base, w.corrected))
        if inside[i] and judged[i] and was != now:
            found.append(str(i))
    return sorted(found)


def test_sets_are_a_family_of_their_own_and_every_number_follows_from_their_images() -> None:
    w = world(broken=0.05)
    inside = np.arange(2000) % 7 == 3
    report = run(w, ImageSet("night", "slice", inside), ImageSet("day", "slice", ~inside))
    row = {r.group.name: r for r in report.slices}["set=night"]
    right, now = (x.argmax(axis=1) == w.labels for x in (w.base, w.corrected))
    broken, fixed = int((inside & right & ~now).sum()), int((inside & ~right & now).sum())
    assert fixed > 0
    assert broken > 0
    assert (row.n, row.broken, row.fixed) == (int(inside.sum()), broken, fixed)
    assert row.accuracy_before == right[inside].mean()
    assert row.accuracy_after == now[inside].mean()
    assert row.p == mcnemar_exact(broken, fixed)
    sets = [r for r in report.slices if r.group.name.startswith("set=")]
    assert row in sets
    assert [r.q for r in sets] == pytest.approx(multipletests([r.p for r in sets], method="fdr_bh")[1])
    assert row.mde is not None
    # Whoever picks a set from the flips changes nothing for the slices that nobody picked.
    plain = run(w)
    assert [r for r in report.slices if r not in sets] == list(plain.slices)
    assert [g.name for g in report.gates] == [g.name for g in plain.gates]  # a slice is no gate


def test_a_small_set_is_shown_without_a_verdict_and_changes_no_other_number() -> None:
    w = world()
    report, plain = run(w, ImageSet("few", "slice", rows(w, 1, 2, 3))), run(w)
    assert report.slices[:-1] == plain.slices
    row = report.slices[-1]
    assert (row.group.name, row.n) == ("set=few", 3)
    assert (row.q, row.interval, row.verdict) == (None, None, None)


def test_an_invariant_list_passes_while_no_answer_changes_and_fails_with_the_first_that_does() -> None:
    w = world()
    everything = np.ones(2000, dtype=bool)
    flipped = [int(i) for i in changed_in(w, everything, everything)]
    still = [i for i in range(2000) if i not in set(flipped)]
    kept = run(w, ImageSet("kept", "invariant", rows(w, *still[:40])), repeat_logits=w.base)
    gate = gate_of(kept, "kept")
    assert (gate.state, gate.kind, gate.estimate, gate.n) == ("pass", "harm", 0.0, 40)
    assert gate.reason == "0 of 40 changed their answer (allowed 0)"
    assert kept.verdict.name == run(w, repeat_logits=w.base).verdict.name == "generalises"
    # One of them that was even fixed: an answer that may not change has changed.
    report = run(w, ImageSet("kept", "invariant", rows(w, flipped[0], *still[:40])), repeat_logits=w.base)
    gate = gate_of(report, "kept")
    assert (gate.state, gate.n, gate.estimate) == ("fail", 41, 1 / 41)
    assert gate.reason == f"1 of 41 changed their answer (allowed 0): {flipped[0]}"
    assert report.verdict.name == "generalises with harm"
    assert any(r.startswith(GATE + "kept: 1 of 41") for r in report.verdict.reasons)
    many = gate_of(run(w, ImageSet("x", "invariant", rows(w, *flipped))), "x")
    assert many.reason.endswith(", ...")
    assert many.reason.startswith(f"{len(flipped)} of {len(flipped)}")


def test_images_of_a_set_that_are_not_judged_are_counted_and_decide_nothing() -> None:
    w = world(broken=0.5)
    at = np.arange(2000)
    splits = np.where(at < 1000, "discover", np.where(at < 1500, "select", "confirm"))
    seen = at == 1600
    inside = (at % 50 == 0) | seen
    given = w.given(
        splits=splits, seen=seen, image_sets=(ImageSet("a", "invariant", inside, n_elsewhere=5, n_gone=2),)
    )
    report = validate(given, SPEC)
    (judged,) = report.image_sets
    assert (judged.evaluated, judged.left_out, judged.other_splits, judged.gone) == (9, 1, 35, 2)
    assert judged.n == 47
    expected = changed_in(w, inside, per_image(given, SPEC)["evaluated"])
    assert expected
    assert (judged.changed, list(judged.changed_ids)) == (len(expected), expected)
    reason = gate_of(report, "a").reason
    assert reason.startswith(f"{len(expected)} of 9 changed")
    assert reason.endswith(
        "; 35 of other splits, 1 seen or leaked, 2 not in the data set any more are not judged here"
    )


def test_a_list_of_which_no_image_is_judged_leaves_its_gate_open() -> None:
    w = world()
    splits = np.where(np.arange(2000) < 500, "select", "confirm")
    report = run(w, ImageSet("a", "invariant", rows(w, 1, 2), n_elsewhere=1), splits=splits)
    gate = gate_of(report, "a")
    assert (gate.state, gate.estimate, gate.n) == ("undecided", None, 0)
    assert gate.reason == "none of its 3 images is judged here: 3 of other splits"
    assert report.verdict.name == "inconclusive"
    assert "set=a" not in {r.group.name for r in report.slices}


def test_an_unlabelled_image_must_keep_its_answer_too_and_is_in_no_slice() -> None:
    w = world(broken=1.0)
    lost = int(np.flatnonzero(~w.target)[0])
    labels = np.where(rows(w, lost), -1, w.labels)
    report = run(dataclasses.replace(w, labels=labels), ImageSet("a", "invariant", rows(w, lost)))
    assert gate_of(report, "a").state == "fail"
    assert "set=a" not in {r.group.name for r in report.slices}


def test_a_change_below_the_noise_floor_is_no_change() -> None:
    w = world(fixed=0.0)
    corrected = w.base.copy()
    top = w.base[0].argsort()
    corrected[0, top[-2]] = corrected[0, top[-1]] + 1e-3
    repeat = w.base + np.where(np.arange(2000)[:, None] == 0, 10.0, 0.0) * np.array([[1.0, -1.0, 1.0, -1.0]])
    loud = dataclasses.replace(w, corrected=corrected)
    listed = ImageSet("a", "invariant", rows(w, 0))
    assert gate_of(run(loud, listed), "a").state == "fail"
    assert gate_of(run(loud, listed, repeat_logits=repeat), "a").state == "pass"


def test_the_table_of_images_says_who_is_in_a_set_and_the_report_is_plain_json() -> None:
    w = world()
    given = w.given(image_sets=(ImageSet("a=b, c", "slice", rows(w, 5, 9)),))
    table = per_image(given, SPEC)
    assert np.flatnonzero(table["set:a=b, c"]).tolist() == [5, 9]
    content = validate(given, SPEC).to_dict()
    assert content["image_sets"][0] == {
        "name": "a=b, c",
        "purpose": "slice",
        "n": 2,
        "evaluated": 2,
        "left_out": 0,
        "other_splits": 0,
        "gone": 0,
        "changed": content["image_sets"][0]["changed"],
        "changed_ids": list(content["image_sets"][0]["changed_ids"]),
    }


def test_sets_that_cannot_be_meant_are_refused() -> None:
    w = world()
    inside = rows(w, 1)
    with pytest.raises(InvalidInput, match="two image sets are called 'a'"):
        run(w, ImageSet("a", "slice", inside), ImageSet("a", "invariant", inside))
    with pytest.raises(InvalidInput, match="images of the set 'a'"):
        run(w, ImageSet("a", "slice", inside[:5]))
