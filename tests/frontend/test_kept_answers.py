"""Who may not ask is shown what colleagues were told: of the same question, and never of another."""

from dataclasses import replace

import pytest
from tests.client.samples import ATTRIBUTION, EFFECT, IMAGE, NAMES, PROVENANCE, SAE, THEN

from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import LatentCondition, Scale, Scope
from fulcrum.domain.identifiers import new_id
from fulcrum.domain.records import ResultRecord
from fulcrum.domain.tasks import ClassSet
from fulcrum_ui.bench_state import Bench
from fulcrum_ui.parts import kept_answers

TASK = ClassSet(NAMES)
SAES = {SAE.id: SAE}
BENCH = Bench(IMAGE.id, SAE.id, NAMES, gains=((7, 0.0), (3, 1.0)))  # a gain of 1 is no edit


def record(kind, value, **request):
    asked = {"sae_id": SAE.id, "task": to_json(TASK)} | request
    return ResultRecord(
        new_id("res"),
        "prj_1",
        kind,
        "k",
        asked,
        {"value": to_json(value)},
        PROVENANCE,
        "usr_1",
        THEN,
        IMAGE.id,
    )


def explained(**request):
    return record("attribution", ATTRIBUTION, **request)


def steered(*edits, effect=EFFECT, **more):
    tried = Correction("m", "s", "visual.blocks.3.resid_post", edits, **more)
    return record("effect", effect, correction=to_json(tried))


def test_the_newest_answer_to_the_same_question_is_shown():
    of_others = (
        explained(sae_id="sae_other"),
        explained(task=to_json(ClassSet(("dog", "cat")))),
        explained(task=to_json(ClassSet(NAMES, ("a drawing of a {}",)))),
        explained(task={"names": []}),  # of another version
    )
    wanted, older = explained(), explained()
    found = kept_answers.explanation([*of_others, wanted, older], IMAGE, SAES, BENCH)
    assert found.result_id == wanted.id
    assert (found.task, found.sae, found.prediction.top) == (TASK, SAE, "dog")
    assert kept_answers.explanation(of_others, IMAGE, SAES, BENCH) is None


def test_an_address_that_names_an_image_alone_shows_whatever_was_asked_last():
    other = ClassSet(("dog", "cat"))
    found = kept_answers.explanation(
        [explained(task=to_json(other)), explained()], IMAGE, SAES, Bench(IMAGE.id)
    )
    assert found.task == other


def test_classes_that_no_task_can_have_are_no_error():
    assert kept_answers.explanation([explained()], IMAGE, SAES, replace(BENCH, classes=(" ",))) is None


def test_the_effect_is_that_of_exactly_these_edits():
    why = kept_answers.explanation([explained()], IMAGE, SAES, BENCH)
    others = (
        steered(Scale(7, 0.5)),
        steered(Scale(7, 0.0), Scale(3, 0.0)),
        steered(Scale(7, 0.0), scope=Scope("patch_list", (1,))),
        steered(Scale(7, 0.0), conditions=(LatentCondition(3, ">=", 1.0),)),
        steered(Scale(7, 0.0), drop_error=True),
    )
    assert kept_answers.steering(others, why, BENCH) is None
    wanted = steered(Scale(7, 0.0))
    found = kept_answers.steering([*others, wanted], why, BENCH)
    assert (found.result_id, found.edits, found.after.top) == (wanted.id, (Scale(7, 0.0),), "cat")
    with_region = replace(BENCH, region=(1,))
    assert kept_answers.steering([*others, wanted], why, with_region).result_id == others[2].id


def test_one_with_controls_comes_before_a_newer_one_without():
    why = kept_answers.explanation([explained()], IMAGE, SAES, BENCH)
    bare = steered(Scale(7, 0.0), effect=replace(EFFECT, controls=()))
    controlled = steered(Scale(7, 0.0))
    assert kept_answers.steering([bare, controlled], why, BENCH).result_id == controlled.id
    assert kept_answers.steering([bare], why, BENCH).result_id == bare.id


@pytest.mark.parametrize("asked", [["attribution"], ["attribution", "effect"]])
def test_effects_are_asked_for_only_where_something_is_edited(asked):
    kinds = []
    image = replace(IMAGE, id=new_id("img"))  # what is remembered of another one does not count

    class Client:
        class results:
            @staticmethod
            def list(*, kind, image):
                kinds.append((kind, image))
                return iter([explained()] if kind == "attribution" else [steered(Scale(7, 0.0))])

    bench = BENCH if len(asked) > 1 else replace(BENCH, gains=())
    why, tried = kept_answers.find(Client, image, [SAE], bench)
    assert kinds == [(kind, image) for kind in asked]
    assert why is not None
    assert (tried is not None) is (len(asked) > 1)
