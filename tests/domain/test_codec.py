import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain import codec
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Add, Cap, LatentCondition, MarginCondition, ProjectOut, Scale, Scope, SetTo
from fulcrum.domain.errors import (
    ComputationFailed,
    EmptyPrompts,
    InvalidEdit,
    InvalidRequest,
    LatentOutOfRange,
)
from fulcrum.domain.models import ModelInfo, ModelRef
from fulcrum.domain.records import CorrectionVersion, ImageRecord, Page
from fulcrum.domain.results import (
    Controls,
    DoseResponse,
    EditDiagnostics,
    Effect,
    Prediction,
    Suggestion,
)
from fulcrum.domain.tasks import ClassSet, CosineTarget, LogitTarget, MarginTarget, Target

finite = st.floats(allow_nan=False, allow_infinity=False)
latents = st.integers(0, 10_000)
edits = st.one_of(
    st.builds(Scale, latents, finite),
    st.builds(SetTo, latents, finite),
    st.builds(Add, latents, finite),
    st.builds(Cap, latents, st.floats(0, 1e6)),
    st.builds(ProjectOut, latents, finite, st.sampled_from(["decoder", "encoder"])),
)
class_sets = st.lists(st.text("abc", min_size=1), min_size=1, max_size=4, unique=True).map(
    lambda names: ClassSet(tuple(names))
)
corrections = st.builds(
    Correction,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.just("visual.blocks.3.resid_post"),
    st.lists(edits, max_size=4, unique_by=lambda e: e.latent).map(tuple),
    st.sampled_from([Scope(), Scope("cls"), Scope("patch_list", (1, 5))]),
    st.sampled_from([(), (LatentCondition(2, ">=", 0.5), MarginCondition(1.0))]),
    st.none() | class_sets,
)


def through_text(value):
    return json.loads(json.dumps(codec.to_json(value), allow_nan=False))


@settings(max_examples=60, deadline=None)
@given(corrections)
def test_a_correction_keeps_its_identity_on_the_way_through_json(correction):
    back = codec.from_json(Correction, through_text(correction))
    assert back.sha256 == correction.sha256


@settings(max_examples=60, deadline=None)
@given(st.lists(edits, max_size=3), finite, st.booleans(), st.none() | st.tuples(finite, finite))
def test_a_suggestion_comes_back_equal(found, margin, flips, interval):
    suggestion = Suggestion(tuple(found), True, margin, margin, flips, interval, margin)
    assert codec.from_json(Suggestion, through_text(suggestion)) == suggestion


def prediction():
    return Prediction(("a", "b"), np.array([1.5, -2.25], np.float32), np.array([0.75, 0.25]))


def test_an_effect_comes_back_with_its_arrays_unions_and_missing_parts():
    effect = Effect(
        prediction(),
        prediction(),
        EditDiagnostics((True, False), True, np.array([0.0, 0.5]), 1e-9, ((3, 0.25),), True),
        (Controls("matched_latents", np.array([0.1, -0.1]), 1, 0.5),),
        MarginTarget("a", "b"),
        1.0,
        2.0,
    )
    back = codec.from_json(Effect, through_text(effect))
    assert back.target == MarginTarget("a", "b")
    assert back.reconstruction_only is None
    assert back.diagnostics.moved_latents == ((3, 0.25),)
    np.testing.assert_array_equal(back.before.logits, effect.before.logits)
    np.testing.assert_array_equal(back.controls[0].target_changes, [0.1, -0.1])


def test_a_page_of_records_comes_back_with_times_in_utc():
    at = datetime(2026, 11, 21, 10, 0, 0, 123456, UTC)
    image = ImageRecord("img_1", "prj_1", "ab" * 32, "image/png", 10, 2, 3, "a.png", "usr_1", at)
    page = Page((image,), "next")
    assert codec.from_json(Page[ImageRecord], through_text(page)) == page


def test_a_record_that_holds_a_correction_comes_back_equal():
    correction = Correction("a" * 64, "b" * 64, "visual.blocks.1.mlp_out", (Scale(3, 0.0),))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    version = CorrectionVersion("cor_1", 1, correction.sha256, correction, "usr_1", at, "why")
    assert codec.from_json(CorrectionVersion, through_text(version)) == version


def test_a_model_s_description_comes_back_equal():
    info = ModelInfo(
        ModelRef("ViT-B-32", "openai"), "a", "b", 224, 12, 768, 512, 50, (7, 7), True, "tok", 100.0, None, 1, "cpu",
        "float32", hook_points=("visual.blocks.0.resid_post",),
    )  # fmt: skip
    assert codec.from_json(ModelInfo, through_text(info)) == info


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), np.array([1.0, np.inf])])
def test_a_number_that_is_not_finite_is_never_written(bad):
    with pytest.raises(ComputationFailed):
        codec.to_json({"value": bad})


def test_what_has_no_json_form_is_a_bug_and_says_so():
    with pytest.raises(TypeError, match="object has no JSON form"):
        codec.to_json(object())


@dataclass(frozen=True)
class Example:
    number: int
    share: float
    name: str
    flag: bool
    at: datetime | None
    target: Target
    pairs: tuple[tuple[int, float], ...] = ()


def good():
    return {
        "number": 1,
        "share": 0.5,
        "name": "n",
        "flag": True,
        "at": None,
        "target": {"kind": "logit", "class_name": "dog"},
    }


def test_whole_numbers_are_taken_where_a_share_is_asked_for_and_alternatives_by_their_kind():
    value = codec.from_json(Example, {**good(), "share": 1, "pairs": [[1, 2]]})
    assert value.share == 1.0
    assert value.target == LogitTarget("dog")
    assert value.pairs == ((1, 2.0),)
    cosine = codec.from_json(Example, {**good(), "target": {"kind": "cosine", "class_name": "cat"}})
    assert cosine.target == CosineTarget("cat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 1.0}, "Example.number is '1.0': expected a whole number"),
        ({"number": True}, "Example.number is 'True': expected a whole number"),
        ({"share": "x"}, "Example.share is 'x': expected a finite number"),
        ({"share": math.nan}, "Example.share is 'nan': expected a finite number"),
        ({"name": 3}, "Example.name is '3': expected a text"),
        ({"flag": 1}, "Example.flag is '1': expected true or false"),
        ({"at": "yesterday"}, "Example.at is 'yesterday': expected a time in ISO 8601"),
        ({"target": {"kind": "odds"}}, "Example.target has kind 'odds': expected one of"),
        ({"target": 5}, "Example.target has kind 5: expected one of"),
        ({"target": {"kind": "logit"}}, "Example.target lacks the field 'class_name'"),
        ({"pairs": [[1]]}, "Example.pairs[0] has 1 items: expected 2"),
        ({"pairs": "ab"}, "Example.pairs is 'ab': expected a list"),
        ({"extra": 1}, "Example has no field 'extra'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_value(change, message):
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        codec.from_json(Example, {**good(), **change})


@pytest.mark.parametrize("content", [None, 3, "text", [1]])
def test_a_thing_that_is_no_object_is_refused(content):
    with pytest.raises(InvalidRequest, match="expected an object"):
        codec.from_json(Example, content)


def test_ragged_and_infinite_arrays_are_refused():
    dose = {
        "gains": [0, 1],
        "logits": [[1, 2], [3]],
        "class_names": ["a", "b"],
        "target_values": [1, 2],
        "target": {"kind": "logit", "class_name": "a"},
        "flip_interval": None,
        "monotone": True,
    }
    with pytest.raises(InvalidRequest, match="rectangular list of numbers"):
        codec.from_json(DoseResponse, dose)
    with pytest.raises(InvalidRequest, match="not finite"):
        codec.from_json(DoseResponse, {**dose, "logits": [[1, math.inf], [3, 4]]})


def test_what_a_value_refuses_of_itself_keeps_its_own_error():
    with pytest.raises(EmptyPrompts):
        codec.from_json(ClassSet, {"names": []})
    with pytest.raises(LatentOutOfRange):
        codec.from_json(Scale, {"latent": -1, "gain": 0.0})
    with pytest.raises(InvalidEdit):
        codec.from_json(Correction, {"edits": [{"kind": "magic"}]})
