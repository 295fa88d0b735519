"""`validate` end to end, its headline numbers recomputed from the per-image table."""

import json

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from tests.science.validation.world import World, world

from fulcrum.domain.errors import (
    ComputationFailed,
    DatasetWithoutLabels,
    InvalidDataset,
    InvalidInput,
    SingleClassDataset,
)
from fulcrum.science.validation.flips import OUTCOMES, flip_table
from fulcrum.science.validation.looks import Look, Looks
from fulcrum.science.validation.per_image import COLUMNS, per_image
from fulcrum.science.validation.report import ValidationReport, plan, validate
from fulcrum.science.validation.specification import ProtectedGroup, Specification
from fulcrum.science.validation.stale import Subject

SPEC = Specification()
SUBJECT = Subject("c", "d", "m", "s", "1")


def gate_states(report: ValidationReport) -> dict[str, str]:
    return {g.name: g.state for g in report.gates}


def run(w: World, spec: Specification = SPEC, **more) -> ValidationReport:
    return validate(w.given(**more), spec)


def test_a_correction_that_fixes_unseen_images_and_breaks_none_generalises() -> None:
    w = world()
    report = run(w, repeat_logits=w.base, identity_logits=w.base)
    assert report.verdict.badge == "generalises"
    assert set(gate_states(report).values()) == {"pass"}
    assert report.gates_left_out == ()
    assert report.overall.fixed == report.efficacy.generalisation.count == 360  # .6 of .6 of 1000


def test_one_that_also_breaks_images_generalises_with_harm() -> None:
    report = run(world(broken=0.06))
    assert report.verdict.name == "generalises with harm"
    assert gate_states(report)["harm"] == gate_states(report)["clean_loss"] == "fail"


def test_one_that_breaks_more_than_it_fixes_is_harmful() -> None:
    assert run(world(fixed=0.1, broken=0.5)).verdict.name == "harmful"


def test_one_that_fixes_nothing_unseen_is_good_for_its_own_image_only() -> None:
    report = run(world(fixed=0.0, moved=0.5))
    assert report.verdict.name == "instance-only"
    assert report.overall.moved == 300


def test_one_that_changes_nothing_at_all_is_no_error() -> None:
    report = run(world(fixed=0.0))
    assert (report.overall.changed, report.overall.p) == (0, 1.0)
    assert report.verdict.name == "instance-only"


def test_one_no_better_than_random_pushes_does_not_generalise() -> None:
    report = run(world(), control_gains={"random_directions": np.full(100, 0.5)})
    assert gate_states(report)["controls"] == "fail"
    assert report.verdict.name == "instance-only"


def test_too_few_images_are_inconclusive_and_the_number_they_ask_for_decides() -> None:
    small = world(n=200)
    report = run(small)
    assert report.verdict.name == "inconclusive"
    assert gate_states(report)["harm"] == "undecided"
    needed = report.verdict.needs_n
    assert needed == 500  # for the ECE; 299 unbroken images for the NFR
    assert run(world(n=needed)).verdict.name == "generalises"
    assert report.verdict.badge == "inconclusive (needs n >= 500)"


def test_what_was_found_on_a_split_is_not_proven_by_it() -> None:
    for split in ("discover", "select"):
        verdict = run(world(), split=split).verdict
        assert (verdict.name, verdict.provisional) == ("inconclusive", "generalises")


def test_the_images_of_discover_give_e_and_never_g() -> None:
    w = world()
    splits = np.where(np.arange(2000) < 1000, "discover", "confirm")
    report = run(w, splits=splits)
    assert (report.counted.found_on, report.counted.evaluated, report.counted.other_splits) == (
        1000,
        1000,
        1000,
    )
    e, g = report.efficacy.efficacy, report.efficacy.generalisation
    assert e.n + g.n == 600
    assert report.overall.n == 1000
    assert report.efficacy.specificity == 1.0


def test_seen_images_and_their_duplicates_prove_nothing() -> None:
    w = world(n=1200)
    seen = np.arange(1200) == 8
    clusters = [""] * 1200
    clusters[8] = clusters[16] = clusters[24] = "twin"
    report = run(w, seen=seen, clusters=clusters)
    assert (report.counted.found_on, report.counted.leaked, report.counted.evaluated) == (1, 2, 1197)
    # Blank clusters are images by themselves.
    assert report.overall.n_clusters == 1197


def test_flips_below_the_noise_floor_are_not_reported() -> None:
    w = world(fixed=0.0)
    corrected = w.base.copy()
    nearly = np.flatnonzero(~w.target)[:5]
    other = (w.labels[nearly] + 1) % 4
    base = w.base.copy()
    base[nearly, other] = base[nearly, w.labels[nearly]] - 1e-5
    corrected[:] = base
    corrected[nearly, other] += 2e-5
    given = World(base, corrected, w.labels, w.target)
    loud = run(given)
    quiet = run(given, repeat_logits=base + 1e-4)
    assert loud.overall.broken == 5
    assert (quiet.overall.broken, quiet.counted.below_floor) == (0, 5)


def test_an_identity_that_flips_makes_everything_inconclusive() -> None:
    w = world()
    report = run(w, identity_logits=w.corrected)
    assert report.verdict.badge == "inconclusive (precondition)"


def test_a_protected_group_is_guarded_by_itself() -> None:
    w = world(n=4000)
    corrected = w.corrected.copy()
    rare = np.flatnonzero(~w.target & (np.arange(4000) % 3 == 0))[:200]
    group = np.zeros(4000, dtype=bool)
    group[rare] = True
    corrected[rare[:12], (w.labels[rare[:12]] + 2) % 4] += 9
    groups = {"person": np.where(group, "child", "adult")}
    spec = Specification(protected_groups=(ProtectedGroup("person", "child"),))
    harmed = World(w.base, corrected, w.labels, w.target)
    states = gate_states(run(harmed, spec, groups=groups))
    assert states["harm"] == "pass"  # 12 of 4000
    assert states["harm: person=child"] == "fail"
    assert run(harmed, spec, groups=groups).verdict.name == "generalises with harm"
    few = Specification(protected_groups=(ProtectedGroup("person", "elder"),))
    groups["person"][:19] = "elder"
    assert gate_states(run(w, few, groups=groups))["harm: person=elder"] == "undecided"
    with pytest.raises(InvalidInput, match="column 'age'"):
        run(w, Specification(protected_groups=(ProtectedGroup("age", "1"),)))


def test_gates_that_are_not_asked_are_named() -> None:
    spec = Specification(
        clean_loss_margin=None, worst_group_margin=None, kl_p95_limit=None, ece_margin=None, min_controls=0
    )
    report = run(world(), spec)
    assert set(gate_states(report)) == {"efficacy", "harm"}
    assert [text.split(":")[0] for text in report.gates_left_out] == [
        "identity",
        "noise_floor",
        "controls",
        "clean_loss",
        "worst_group",
        "ripple",
        "calibration",
    ]


def test_control_predictions_are_counted_on_the_judged_images_of_the_failure_mode() -> None:
    w = world()
    predicted = np.repeat(w.base.argmax(1)[None], 100, axis=0)
    predicted[0] = w.labels  # one control mends all 600 failures
    report = run(w, control_gains={}, control_predictions={"matched_latents": predicted})
    (result,) = report.controls
    assert (result.best, result.median, result.gain) == (0.6, 0.0, 0.36)
    assert result.p == pytest.approx(2 / 101)


def test_looks_are_counted_and_a_second_one_at_confirm_is_on_the_badge() -> None:
    looks = Looks()
    for name, p, split in (("c", 0.01, "select"), ("x", 0.5, "select"), ("c", 0.01, "confirm")):
        looks = looks.record(Look(name, "d", split, p))  # type: ignore[arg-type]
    report = run(world(), looks=looks, subject=SUBJECT)
    assert report.confirm_look == 2
    assert report.verdict.badge == "generalises · look 2 at confirm"
    assert report.selection is not None
    assert (report.selection.n_looks, report.selection.q) == (2, 0.02)


def test_every_headline_number_can_be_recomputed_from_the_per_image_table() -> None:
    w = world(n=1500, broken=0.01, moved=0.3, seed=4)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2, 1500, 6))
    given = w.given(base_embeddings=embeddings[0], corrected_embeddings=embeddings[1])
    report, table = validate(given, SPEC), per_image(given, SPEC)
    assert set(COLUMNS) <= set(table)
    assert all(len(column) == 1500 for column in table.values())

    y, a, b = table["label"], table["base_prediction"], table["corrected_prediction"]
    was, now = a == y, b == y
    broken, fixed = int((was & ~now).sum()), int((~was & now).sum())
    assert (report.overall.broken, report.overall.fixed) == (broken, fixed)
    assert report.overall.p == pytest.approx(mcnemar([[0, broken], [fixed, 0]], exact=True).pvalue)
    assert report.overall.net == pytest.approx(now.mean() - was.mean())
    upper = proportion_confint(broken, 1500, alpha=0.1, method="beta")[1]
    assert report.overall.nfr_bound.upper == pytest.approx(upper)

    target = table["target"]
    failures = target & ~was
    g = report.efficacy.generalisation
    assert (g.count, g.n) == ((failures & now).sum(), failures.sum())
    assert g.interval is not None
    assert (g.interval.low, g.interval.high) == pytest.approx(proportion_confint(g.count, g.n, method="beta"))

    assert report.ripple is not None
    kl = table["kl"][~target]
    assert report.ripple.kl.mean == pytest.approx(kl.mean())
    assert report.ripple.kl.p95 == np.quantile(kl, 0.95, method="inverted_cdf")
    assert report.ripple.embedding_drift is not None
    assert report.ripple.embedding_drift.max == table["embedding_drift"][~target].max()

    assert report.calibration.log_loss.after == pytest.approx(table["corrected_log_loss"].mean())
    assert report.calibration.brier.difference == pytest.approx(
        (table["corrected_brier"] - table["base_brier"]).mean()
    )
    order = np.lexsort((now, table["corrected_confidence"]))
    bins = np.array_split(order, 15)
    ece = sum(abs((now[i] - table["corrected_confidence"][i]).sum()) for i in bins) / 1500
    assert report.calibration.ece is not None
    assert report.calibration.ece.after == pytest.approx(ece)

    ps = []
    for row in report.groups:
        mask = table[f"group:{row.group.columns[0]}"] == row.group.values[0]
        n10, n01 = int((mask & was & ~now).sum()), int((mask & ~was & now).sum())
        assert (row.n, row.broken, row.fixed) == (mask.sum(), n10, n01)
        ps.append(mcnemar([[0, n10], [n01, 0]], exact=True).pvalue)
    assert [r.q for r in report.groups] == pytest.approx(multipletests(ps, method="fdr_bh")[1])
    sizes = np.bincount(table["outcome"], minlength=len(OUTCOMES))
    assert dict(zip(OUTCOMES, sizes, strict=True))["moved"] == report.overall.moved
    assert sum(pair.n for pair in report.changed_pairs) == (a != b).sum()


def test_margins_are_of_the_label_over_the_best_other() -> None:
    w = world(n=40)
    table = per_image(w.given(), SPEC)
    for i in range(40):
        others = np.delete(w.base[i], w.labels[i])
        assert table["base_margin"][i] == pytest.approx(w.base[i, w.labels[i]] - others.max())


def test_the_report_is_json_and_the_order_of_the_images_does_not_change_it() -> None:
    w = world(n=600, broken=0.02)
    order = np.random.default_rng(0).permutation(600)
    shuffled = World(w.base[order], w.corrected[order], w.labels[order], w.target[order])
    one = run(w, provenance={"device": "cpu", "seed": 0}).to_dict()
    groups = {name: column[order] for name, column in w.given().groups.items()}
    two = run(shuffled, groups=groups, provenance={"device": "cpu", "seed": 0}).to_dict()
    json.dumps(one, allow_nan=False)
    assert one["provenance"] == {"device": "cpu", "seed": 0}
    assert one["specification_sha256"] == SPEC.sha256
    assert one["groups"][0]["group"]["name"] == "sticker=none"
    for part in (
        "overall",
        "target",
        "unaffected",
        "efficacy",
        "groups",
        "slices",
        "classes",
        "changed_pairs",
    ):
        assert one[part] == two[part], part
    assert one["ripple"]["kl"]["p95"] == two["ripple"]["kl"]["p95"]
    assert one["calibration"]["ece"]["after"] == pytest.approx(two["calibration"]["ece"]["after"])


def test_the_same_inputs_give_the_same_report() -> None:
    w = world(n=600, broken=0.02)
    assert run(w).to_dict() == run(w).to_dict()


def test_half_labelled_images_are_judged_by_their_labels_and_counted_as_changed() -> None:
    w = world(n=1200)
    labels = np.where(np.arange(1200) < 700, w.labels, -1)
    report = run(World(w.base, w.corrected, labels, w.target))
    assert (report.counted.labelled, report.counted.unlabelled, report.overall.n) == (700, 500, 700)
    changed = (w.base.argmax(1) != w.corrected.argmax(1))[700:].sum()
    assert report.counted.unlabelled_changed == changed
    assert report.ripple is not None
    assert report.ripple.n == 600  # unlabelled ones must not move either


def test_twins_are_drawn_and_tested_as_clusters() -> None:
    w = world(n=600, broken=0.02)
    twice = World(*(np.repeat(x, 2, axis=0) for x in (w.base, w.corrected, w.labels, w.target)))
    groups = {"all": np.full(1200, "x")}
    clustered = run(twice, groups=groups, clusters=np.repeat(np.arange(600), 2))
    once = run(w, groups={"all": np.full(600, "x")})
    assert clustered.overall.p_method == "sign_flip_exact"
    assert clustered.overall.p == pytest.approx(once.overall.p)
    assert clustered.overall.nfr_bound.upper == pytest.approx(once.overall.nfr_bound.upper, rel=0.02)


def test_the_plan_is_known_before_the_run() -> None:
    before = plan(1000, 56, SPEC)
    assert before.mde == pytest.approx(0.0198, abs=5e-5)
    assert before.mde_target is None
    assert (before.images_for_harm, before.can_pass_harm) == (299, True)
    assert not plan(298, 0, SPEC).can_pass_harm


def test_inputs_that_cannot_be_judged_are_refused() -> None:
    w = world(n=80)
    nan = w.corrected.copy()
    nan[3, 1] = np.nan
    with pytest.raises(ComputationFailed, match="the first is row 3"):
        run(World(w.base, nan, w.labels, w.target))
    with pytest.raises(InvalidInput, match="must have one shape"):
        run(World(w.base, w.corrected[:, :3], w.labels, w.target))
    with pytest.raises(InvalidInput, match="labels has 79 values for 80 images"):
        run(World(w.base, w.corrected, w.labels[:79], w.target))
    with pytest.raises(InvalidInput, match="target must be a boolean"):
        run(World(w.base, w.corrected, w.labels, w.target.astype(int)))
    with pytest.raises(InvalidDataset, match=r"labels of image 0 is 9"):
        run(World(w.base, w.corrected, np.where(np.arange(80) == 0, 9, w.labels), w.target))
    with pytest.raises(SingleClassDataset, match="class 2"):
        run(World(w.base, w.corrected, np.full(80, 2), w.target))
    with pytest.raises(DatasetWithoutLabels, match="only changed"):
        run(w, labels=None)
    with pytest.raises(DatasetWithoutLabels, match="all 80 images are unlabelled"):
        run(w, labels=np.full(80, -1))
    with pytest.raises(InvalidDataset, match="no unseen image"):
        run(w, seen=np.ones(80, dtype=bool))
    with pytest.raises(InvalidDataset, match="no images"):
        per_image(World(w.base[:0], w.corrected[:0], w.labels[:0], w.target[:0]).given(groups={}), SPEC)
    with pytest.raises(InvalidInput, match="class names"):
        run(w, class_names=("cat",))
    with pytest.raises(InvalidDataset, match="ids must differ"):
        run(w, image_ids=["same"] * 80)
    with pytest.raises(InvalidInput, match="both or none"):
        run(w, base_embeddings=np.ones((80, 2)))
    with pytest.raises(InvalidInput, match="given twice"):
        run(w, control_predictions={"matched_latents": np.zeros((100, 80), dtype=int)})


def test_a_data_set_without_labels_still_tells_what_changed() -> None:
    w = world(n=80)
    table = per_image(w.given(labels=None), SPEC)
    counted = flip_table(None, table["base_prediction"], table["corrected_prediction"])
    assert counted.changed == (w.base.argmax(1) != w.corrected.argmax(1)).sum() > 0
    assert np.isfinite(table["kl"]).all()


def test_a_worthless_correction_seldom_generalises() -> None:
    """Fixes and breaks at random: the gates may let through at most what alpha allows (here far less)."""
    passed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        w = world(n=700, fixed=0.0, seed=seed)
        corrected = w.corrected.copy()
        some = np.flatnonzero(rng.random(700) < 0.05)
        corrected[some, rng.integers(0, 4, len(some))] += 12
        passed += run(World(w.base, corrected, w.labels, w.target)).verdict.name.startswith("generalises")
    assert passed == 0
