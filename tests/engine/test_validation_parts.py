import dataclasses
import json

import numpy as np
import pytest

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.edits import PredictedClassCondition, ProjectOut, Scale
from fulcrum.domain.errors import CorruptFile, InvalidEdit
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.sweeping import at_gain, plan_sweep, sweep_correction
from fulcrum.engine.validating import Question, assemble, plan_validation, validate_correction
from fulcrum.engine.validation_parts import part_content, part_from, part_key, run_part, unpacked
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.specification import Specification

SPEC = Specification(worst_group_columns=())


@pytest.fixture
def question(engine, run):
    rates = np.asarray(run.index.statistics.image_rate)
    busy = [int(n) for n in np.argsort(-rates)[[3, 9]]]
    correction = engine.correction(demo_model(), demo_sae(), [Scale(n, 0.0) for n in busy])
    target = run.dataset.groups["sticker_kind"] == "attack"
    return Question(correction, "confirm", target=target, specification=SPEC, n_controls=100)


def fresh(run, task=None, **options):
    task = task or run.task
    head = run.head if task == run.task else dataclasses.replace(run.head, class_names=task.names)
    return DatasetRun(run.steerable, head, task, run.dataset, run.index, **options)


def comparable(report):
    content = report.to_dict()
    content["provenance"].pop("time")
    return content


def test_small_parts_run_by_strangers_give_the_bits_of_one_run(run, question):
    whole = validate_correction(run, question)
    planned = plan_validation(run, question, images_per_part=7)
    assert len(planned.answers) > 4
    # Each part in a run of its own, last one first, and through its JSON: as workers on other machines do it.
    results = [
        run_part(fresh(run, states_budget_bytes=0), part_from(json.loads(json.dumps(part_content(p)))))
        for p in reversed(planned.parts)
    ][::-1]
    given = assemble(fresh(run), question, planned, results)
    assert (given.corrected_logits == whole.given.corrected_logits).all()
    assert (given.corrected_embeddings == whole.given.corrected_embeddings).all()
    assert given.latents == whole.given.latents
    for kind, gains in whole.given.control_gains.items():
        assert (given.control_gains[kind] == gains).all()
    assert comparable(whole.report) == comparable(
        validate_correction(run, question, images_per_part=7).report
    )


def test_the_parts_together_equal_a_naive_run(run, question):
    given = validate_correction(run, dataclasses.replace(question, n_controls=0)).given
    numbers = np.flatnonzero(np.isin(run.dataset.splits, ["confirm", "discover"]))
    base, corrected = run.naive_logits(EditPlan.of(question.correction), numbers)
    np.testing.assert_allclose(given.corrected_logits, corrected, atol=1e-4)
    np.testing.assert_allclose(given.base_logits, base, atol=1e-4)
    assert (given.corrected_logits.argmax(1) == corrected.argmax(1)).all()


def test_a_part_has_another_key_where_its_result_could_differ_and_the_same_one_elsewhere(run, question):
    planned = plan_validation(run, question)
    keys = [part_key(run, p) for p in planned.parts]
    assert len(set(keys)) == len(keys)
    assert keys == [part_key(fresh(run), p) for p in planned.parts]
    names = (*run.task.names[1:], run.task.names[0])
    other_classes = fresh(run, ClassSet(names, run.task.templates))
    for part in planned.parts:
        assert (part_key(other_classes, part) == part_key(run, part)) == (part.kind != "controls")
    conditional = dataclasses.replace(
        question,
        correction=dataclasses.replace(
            question.correction, conditions=(PredictedClassCondition(run.task.names[:2]),)
        ),
    )
    answers = plan_validation(run, conditional).answers[0]
    assert part_key(other_classes, answers) != part_key(run, answers)
    again = plan_validation(run, dataclasses.replace(question, seed=1))
    shared = {part_key(run, p) for p in again.parts} & set(keys)
    assert shared == {part_key(run, p) for p in planned.parts if p.kind != "controls"}


def test_a_sweep_after_a_validation_shares_its_answers_and_controls(run, question):
    validated = {part_key(run, p) for p in plan_validation(run, question).parts}
    planned = plan_sweep(run, question, [0.0, 0.5, 1.0, 2.0])
    assert not planned.gains[1.0].answers  # gain 1 changes nothing, so nothing is run
    shared = [p.kind for p in planned.parts if part_key(run, p) in validated]
    assert shared.count("controls") == 1
    assert shared.count("answers") == len(planned.gains[0.0].answers)


def test_a_sweep_judges_every_gain_as_a_validation_of_it_does(run, question):
    report = sweep_correction(run, question, [2.0, 0.0, 0.5, 1.0])
    assert [g.gain for g in report.gains] == [0.0, 0.5, 1.0, 2.0]
    assert (report.gains[2].fixed, report.gains[2].broken, report.gains[2].moved) == (0, 0, 0)
    assert len(report.controls) == 100
    assert [[d.gain for d in c.doses] for c in report.curves] == [[1.0, 0.5, 0.0], [2.0]]
    for swept in report.gains:
        one = dataclasses.replace(question, correction=at_gain(question.correction, swept.gain), n_controls=0)
        done = validate_correction(run, one).report
        assert (swept.fixed, swept.broken) == (done.overall.fixed, done.overall.broken)
        assert swept.p == done.target.p
        assert swept.dose.nfr_upper == done.overall.nfr_bound.upper
        assert swept.dose.kl_p95 == done.ripple.kl.p95
        assert swept.correction_sha256 == one.correction.sha256


def test_a_correction_without_gains_cannot_be_swept(engine, run, question):
    projection = engine.correction(demo_model(), demo_sae(), [ProjectOut(3)])
    with pytest.raises(InvalidEdit, match="project_out"):
        plan_sweep(run, dataclasses.replace(question, correction=projection), [0.0])


def test_a_damaged_result_is_named():
    with pytest.raises(CorruptFile, match="part"):
        unpacked(b"nothing")


def test_a_question_of_another_class_set_gets_its_own_answers_from_the_same_parts(run, engine, question):
    task = demo_task()
    turned = ClassSet(task.names[::-1], task.templates)
    head = engine.residency.head(demo_model(), turned)
    other = DatasetRun(run.steerable, head, turned, run.dataset, run.index)
    planned = plan_validation(run, dataclasses.replace(question, n_controls=0))
    results = [run_part(run, p) for p in planned.parts]
    given = assemble(other, dataclasses.replace(question, n_controls=0), planned, results)
    mine = assemble(run, question, planned, results)
    np.testing.assert_allclose(given.corrected_logits[:, ::-1], mine.corrected_logits, atol=1e-4)
    assert other.counts.suffix_rows == other.counts.prefix_images == 0
