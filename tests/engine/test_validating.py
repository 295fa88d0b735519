import dataclasses

import numpy as np
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import CorruptFile, DatasetWithoutLabels, InvalidDataset, SaeDoesNotFit
from fulcrum.engine.dataset_controls import (
    matched_latent_plans,
    predictions_of_plans,
    random_direction_predictions,
)
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.group_search import suggest_for_group
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.looks_file import read_looks
from fulcrum.engine.validating import Question, validate_correction
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.flips import flip_table
from fulcrum.science.validation.specification import Specification

NO_CONTROLS = Specification(min_controls=0)


@pytest.fixture(scope="session")
def found(engine, steerable, small_world, index):
    task = demo_task()
    run = DatasetRun(steerable, engine.residency.head(demo_model(), task), task, small_world, index)
    kind, discover = small_world.groups["sticker_kind"], small_world.splits == "discover"
    group, clean = np.flatnonzero(discover & (kind == "attack")), np.flatnonzero(discover & (kind == "none"))
    return suggest_for_group(run, group, clean, budget=300, note="test"), group, clean


def correction_of(engine, *edits):
    return engine.correction(demo_model(), demo_sae(), edits)


def test_the_search_reports_what_a_naive_run_of_its_correction_shows(run, found):
    suggestion, group, clean = found
    assert suggestion.correction.edits
    plan = EditPlan.of(suggestion.correction)
    for numbers, before, after in (
        (group, suggestion.group_accuracy_before, suggestion.group_accuracy_after),
        (clean, suggestion.clean_accuracy_before, suggestion.clean_accuracy_after),
    ):
        base, corrected = run.naive_logits(plan, numbers)
        assert (base.argmax(1) == run.labels[numbers]).mean() == pytest.approx(before)
        assert (corrected.argmax(1) == run.labels[numbers]).mean() == pytest.approx(after)
    assert suggestion.group_accuracy_after > suggestion.group_accuracy_before + 0.1
    assert suggestion.clean_accuracy_after > suggestion.clean_accuracy_before - 0.01
    assert suggestion.correction.origin.dataset_digest == run.dataset.digest


def test_the_identity_correction_fixes_and_breaks_nothing(engine, run):
    identity = correction_of(engine, Scale(3, 1.0), Scale(4, 1.0))
    done = validate_correction(run, Question(identity, "confirm", specification=NO_CONTROLS, n_controls=0))
    assert done.report.overall.fixed == done.report.overall.broken == 0
    assert done.n_affected == 0
    assert done.report.verdict.name in ("instance-only", "inconclusive")


def test_a_report_agrees_with_the_flip_table_of_a_naive_run(run, found):
    suggestion = found[0]
    target = run.dataset.groups["sticker_kind"] == "attack"
    question = Question(suggestion.correction, "confirm", target=target, n_controls=100)
    done = validate_correction(run, question)
    numbers = np.flatnonzero(run.dataset.splits == "confirm")
    base, corrected = run.naive_logits(EditPlan.of(suggestion.correction), numbers)
    table = flip_table(run.labels[numbers], base.argmax(1), corrected.argmax(1))
    overall = done.report.overall
    assert (overall.n, overall.fixed, overall.broken) == (table.n, table.fixed, table.broken)
    assert {c.kind for c in done.report.controls} == {"matched_latents", "random_directions"}
    assert all(c.n_controls == 100 for c in done.report.controls)
    assert done.report.subject.correction_sha256 == suggestion.correction.sha256
    needed = {
        "model_sha256",
        "sae_sha256",
        "dataset_digest",
        "class_names",
        "templates",
        "logit_scale",
        "seed",
    }
    assert needed <= set(done.report.provenance)


def test_an_image_on_which_the_correction_was_found_proves_nothing_whatever_its_split(run, found):
    suggestion = found[0]
    numbers = np.flatnonzero(run.dataset.splits == "confirm")
    on_confirm = tuple(run.dataset.bytes_sha256[n] for n in numbers[:5])
    cheat = dataclasses.replace(
        suggestion.correction,
        origin=dataclasses.replace(suggestion.correction.origin, image_sha256=on_confirm),
    )
    done = validate_correction(run, Question(cheat, "confirm", specification=NO_CONTROLS, n_controls=0))
    # The five, and the twins that share a pair with them.
    assert done.report.counted.evaluated <= len(numbers) - 5
    again = validate_correction(
        run, Question(suggestion.correction, "confirm", specification=NO_CONTROLS, n_controls=0)
    )
    assert again.report.counted.evaluated == len(numbers)
    assert set(suggestion.correction.origin.image_sha256) >= {run.dataset.bytes_sha256[n] for n in found[1]}


def test_without_a_failure_mode_no_gate_waits_for_images_outside_of_it(run, found):
    done = validate_correction(run, Question(found[0].correction, "confirm", n_controls=100))
    names = {g.name for g in done.report.gates}
    assert "clean_loss" not in names
    assert done.report.ripple.n > 0
    assert {c.n_controls for c in done.report.controls} == {100}


def test_a_look_at_select_counts_among_those_it_is_adjusted_for(run, found, tmp_path):
    question = Question(found[0].correction, "select", specification=NO_CONTROLS, n_controls=0)
    looks = tmp_path / "looks.jsonl"
    first = validate_correction(run, question, looks)
    assert (first.report.selection.n_looks, first.report.selection.n_corrections) == (1, 1)
    worse = dataclasses.replace(found[0].correction, edits=found[0].correction.edits[:1])
    second = validate_correction(run, dataclasses.replace(question, correction=worse), looks)
    assert (second.report.selection.n_looks, second.report.selection.n_corrections) == (2, 2)


def test_looks_at_confirm_are_counted_on_the_badge(run, found, tmp_path):
    question = Question(found[0].correction, "confirm", specification=NO_CONTROLS, n_controls=0)
    looks = tmp_path / "looks.jsonl"
    first = validate_correction(run, question, looks)
    second = validate_correction(run, question, looks)
    assert first.report.confirm_look == 1
    assert second.report.confirm_look == 2
    assert "look 2" in second.report.verdict.badge
    assert len(read_looks(looks).looks) == 2
    looks.write_text("not json\n")
    with pytest.raises(CorruptFile, match="line 1"):
        validate_correction(run, question, looks)


def test_nothing_generalises_on_the_split_on_which_it_was_found(run, found):
    question = Question(found[0].correction, "select", specification=NO_CONTROLS, n_controls=0)
    verdict = validate_correction(run, question).report.verdict
    assert not verdict.name.startswith("generalises")


def test_matched_latents_fire_about_as_often_and_never_repeat(run, found):
    plan = EditPlan.of(found[0].correction)
    plans = matched_latent_plans(run, plan, 100, seed=0)
    rates = np.asarray(run.index.statistics.image_rate)
    edited = [e.latent for e in plan.edits]
    assert len(plans) == 100
    for control in plans:
        latents = [e.latent for e in control.edits]
        assert len(set(latents)) == len(latents) == len(edited)
        assert not set(latents) & set(edited)
        assert (rates[latents] > 0).all()
    spread = np.mean([[abs(np.log(rates[c.latent] / rates[e.latent])) for c, e in zip(p.edits, plan.edits, strict=True)]
                      for p in plans])  # fmt: skip
    rng = np.random.default_rng(0)
    alive = np.flatnonzero(rates > 0)
    at_random = np.mean([abs(np.log(rates[rng.choice(alive)] / rates[e])) for e in edited for _ in range(50)])
    assert spread < at_random
    assert matched_latent_plans(run, plan, 5, seed=0) == plans[:5]


def test_controls_are_computed_as_steered_passes_are(run, found):
    plan = EditPlan.of(found[0].correction)
    numbers = found[1][:8]
    control = matched_latent_plans(run, plan, 1, seed=1)
    naive = run.naive_logits(control[0], numbers)[1].argmax(1)
    assert (predictions_of_plans(run, control, numbers)[0] == naive).all()


def test_random_directions_differ_from_draw_to_draw_but_not_from_run_to_run(run, found):
    plan = EditPlan.of(found[0].correction)
    numbers = found[1]
    once = random_direction_predictions(run, plan, numbers, 4, seed=3)
    assert once.shape == (4, len(numbers))
    assert (once == random_direction_predictions(run, plan, numbers, 4, seed=3)).all()


def test_questions_that_the_data_set_cannot_answer(engine, run, steerable, small_world, tmp_path):
    correction = correction_of(engine, Scale(1, 0.0))
    bare = run.dataset.subset(np.flatnonzero(run.dataset.splits == "confirm"))
    other = DatasetRun(steerable, run.head, run.task, bare, open_or_build_index(steerable, bare, tmp_path))
    with pytest.raises(InvalidDataset, match="no split"):
        validate_correction(other, Question(correction, "select"))
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(small_world.read_bytes(small_world.samples[i]))
    (tmp_path / "m.csv").write_text("id,source,split\n" + "".join(f"{i},{i}.png,confirm\n" for i in range(4)))
    unlabelled = load_dataset(tmp_path / "m.csv")
    index = open_or_build_index(steerable, unlabelled, tmp_path / "i")
    blind = DatasetRun(steerable, run.head, run.task, unlabelled, index)
    with pytest.raises(DatasetWithoutLabels):
        validate_correction(blind, Question(correction, "confirm"))
    foreign = dataclasses.replace(correction, model_sha256="f" * 64)
    with pytest.raises(SaeDoesNotFit):
        validate_correction(run, Question(foreign, "confirm"))
    with pytest.raises(InvalidDataset, match="clean"):
        suggest_for_group(run, np.array([0, 1]), np.array([], dtype=np.int64))
    with pytest.raises(InvalidDataset, match="among the clean ones"):
        suggest_for_group(run, np.array([0, 1]), np.array([1, 2]))
