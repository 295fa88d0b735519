import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum.domain.corrections import (
    CONDITION_KINDS,
    EDIT_KINDS,
    Correction,
    Origin,
    from_dict,
    to_dict,
    together,
)
from fulcrum.domain.edits import (
    Add,
    Affine,
    Cap,
    Floor,
    LatentCondition,
    MarginCondition,
    MeanAblate,
    PredictedClassCondition,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
    acts_only_where_it_fires,
)
from fulcrum.domain.errors import (
    EmptyPrompts,
    InvalidEdit,
    InvalidHookPoint,
    InvalidPrompt,
    InvalidTarget,
    LatentOutOfRange,
)
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.tasks import ClassSet, MarginTarget

EDITS = (
    Scale(1, 0.5), SetTo(2, 3.0), Cap(3, 1.0), Floor(4, 0.5), Add(5, -1.0), ProjectOut(6, 0.25, "encoder"),
    MeanAblate(7, 0.1),
    Affine(8, -0.5, 0.25),
)  # fmt: skip
CONDITIONS = (LatentCondition(1, "<=", 2.0), PredictedClassCondition(("a", "b")), MarginCondition(1.5))


def correction(**changes):
    values = {
        "model_sha256": "m", "sae_sha256": "s", "hook_point": "visual.blocks.1.resid_post", "edits": EDITS,
        "scope": Scope("patch_list", (1, 4)), "conditions": CONDITIONS, "task": ClassSet(("a", "b")),
    }  # fmt: skip
    return Correction(**{**values, **changes})


def test_every_kind_survives_json():
    there = correction(origin=Origin("manual", ("x",), "d", "note"))
    assert {e.kind for e in EDITS} == set(EDIT_KINDS)
    assert {c.kind for c in CONDITIONS} == set(CONDITION_KINDS)
    back = from_dict(to_dict(there))
    assert back == there
    assert back.sha256 == there.sha256


def test_the_hash_knows_every_field_but_the_origin():
    base = correction()
    assert correction(origin=Origin("import")).sha256 == base.sha256
    changed = {
        "model_sha256": "x", "sae_sha256": "x", "hook_point": "visual.blocks.2.resid_post", "edits": EDITS[:-1],
        "scope": Scope(), "conditions": (), "task": None, "drop_error": True,
    }  # fmt: skip
    assert set(changed) == {f.name for f in dataclasses.fields(Correction)} - {"origin"}
    assert len({correction(**{k: v}).sha256 for k, v in changed.items()} | {base.sha256}) == len(changed) + 1


def test_equal_numbers_written_differently_are_one_correction():
    assert correction(edits=(Scale(1, 1),)).sha256 == correction(edits=(Scale(1, 1.0),)).sha256
    assert correction(edits=(Scale(1, -0.0),)).sha256 == correction(edits=(Scale(1, 0.0),)).sha256


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"edits": 3},
        {"edits": [{"kind": "explode", "latent": 1}]},
        {"edits": [{"kind": "scale", "latent": 1.5, "gain": 0}]},
        {"edits": [{"kind": "scale", "latent": True, "gain": 0}]},
        {"edits": [{"kind": "scale", "latent": 1}]},
        {"edits": [], "surprise": 1, "model_sha256": "", "sae_sha256": "", "hook_point": ""},
        {"edits": [{"kind": "scale", "latent": 1, "gain": "many"}]},
        {"edits": [{"kind": "scale", "latent": 1, "gain": 10**400}]},
        {"edits": [{"kind": "project_out", "latent": 1, "direction": "enc"}]},
        {"edits": [], "drop_error": "false", "model_sha256": "", "sae_sha256": "", "hook_point": ""},
        {"edits": [], "scope": {"kind": "patchs"}, "model_sha256": "", "sae_sha256": "", "hook_point": ""},
        {"edits": [], "scope": {"kind": "patch_list", "patches": "12"}},
        {"edits": [], "conditions": [{"kind": "latent", "latent": 1, "operator": ">", "threshold": 1}]},
        {"edits": [], "conditions": [{"kind": "predicted_class", "class_names": "dog"}]},
    ],
)
def test_what_is_no_correction_is_refused(content):
    with pytest.raises(InvalidEdit):
        from_dict(content)


def test_edits_that_make_no_sense_are_refused():
    with pytest.raises(LatentOutOfRange, match="-1"):
        Scale(-1, 0.0)
    with pytest.raises(InvalidEdit, match="finite"):
        Scale(1, float("nan"))
    with pytest.raises(InvalidEdit, match=">= 0"):
        Cap(1, -0.5)
    with pytest.raises(InvalidEdit, match="more than once"):
        correction(edits=(Scale(1, 0.0), Cap(1, 1.0)))
    with pytest.raises(InvalidEdit, match="at least one patch"):
        Scope("patch_list")
    with pytest.raises(InvalidEdit, match="no list"):
        Scope("cls", (1,))
    with pytest.raises(InvalidEdit, match="at least one class"):
        PredictedClassCondition(())
    with pytest.raises(InvalidEdit, match="finite"):
        MarginCondition(float("inf"))


@given(st.floats(0, 10), st.floats(-3, 3))
def test_an_edit_acts_only_where_it_fires_exactly_when_it_maps_zero_to_zero(value, gain):
    assert acts_only_where_it_fires(Scale(1, gain))
    assert acts_only_where_it_fires(Cap(1, value))
    assert acts_only_where_it_fires(Floor(1, gain)) == (max(0.0, gain) == 0)
    assert acts_only_where_it_fires(SetTo(1, gain)) == (gain == 0)
    assert acts_only_where_it_fires(Add(1, gain)) == (gain == 0)
    assert acts_only_where_it_fires(MeanAblate(1, gain)) == (gain == 0)
    assert acts_only_where_it_fires(Affine(1, 0.5, gain)) == (gain == 0)
    assert not acts_only_where_it_fires(ProjectOut(1))


@pytest.mark.parametrize(
    "text", ["visual.blocks.0.resid_post", "text.blocks.11.mlp_out", "visual.blocks.3.attn_out"]
)
def test_hook_points_are_written_as_they_are_read(text):
    assert str(HookPoint.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "visual.blocks.x.resid_post",
        "visual.blocks.-1.resid_post",
        "blocks.1",
        "visual.blocks.1.resid_pre",
    ],
)
def test_malformed_hook_points_are_refused(text):
    with pytest.raises(InvalidHookPoint, match="malformed"):
        HookPoint.parse(text)


def test_class_sets_are_checked_where_they_enter():
    with pytest.raises(EmptyPrompts):
        ClassSet(())
    with pytest.raises(EmptyPrompts):
        ClassSet(("a",), ())
    with pytest.raises(InvalidPrompt, match="blank"):
        ClassSet(("a", " "))
    with pytest.raises(InvalidPrompt, match="more than once"):
        ClassSet(("a", "a"))
    with pytest.raises(InvalidPrompt, match="exactly once"):
        ClassSet(("a",), ("a photo",))
    with pytest.raises(InvalidTarget, match="not in the class set"):
        ClassSet(("a",)).index("b")
    with pytest.raises(InvalidTarget, match="always 0"):
        MarginTarget("a", "a")
    assert ClassSet(("a", "b"), ("x {}", "y {}")).prompts() == [["x a", "y a"], ["x b", "y b"]]


def test_two_corrections_together_hold_the_edits_of_both_once() -> None:
    first = Correction(
        "a" * 64, "b" * 64, "h", (Scale(1, 0.0), Scale(2, 0.5)), origin=Origin(image_sha256=("x",))
    )
    second = dataclasses.replace(
        first, edits=(Scale(2, 0.5), SetTo(3, 1.0)), origin=Origin(image_sha256=("x", "y"))
    )
    both = together(first, second)
    assert both.edits == (Scale(1, 0.0), Scale(2, 0.5), SetTo(3, 1.0))
    assert both.origin.image_sha256 == ("x", "y")  # neither proves anything about it


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"edits": (Scale(1, 0.5),)}, "latents"),
        ({"sae_sha256": "c" * 64}, "sae_sha256"),
        ({"scope": Scope("patch_list", (1,))}, "scope"),
        ({"drop_error": True}, "drop_error"),
    ],
)
def test_corrections_that_contradict_each_other_are_none_together(changes, named) -> None:
    first = Correction("a" * 64, "b" * 64, "h", (Scale(1, 0.0),))
    with pytest.raises(InvalidEdit, match=named):
        together(first, dataclasses.replace(first, **changes))
