import contextlib
import dataclasses
import inspect
import typing
from typing import get_args

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rpc.values import any_of, same

from fulcrum.domain import engine, results
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Add, Condition, Edit, LatentCondition, Scale, Scope
from fulcrum.domain.engine import ImageLatents, InferenceEngine
from fulcrum.domain.errors import (
    ComputationFailed,
    EmptyPrompts,
    FulcrumError,
    InvalidEdit,
    InvalidRequest,
    LatentOutOfRange,
    UnknownArtifact,
)
from fulcrum.domain.models import ModelRef
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.results import Controls, DoseResponse
from fulcrum.domain.tasks import DEFAULT_TEMPLATES, ClassSet, LogitTarget, MarginTarget, Target
from fulcrum.rpc import requests
from fulcrum.rpc.convert import MESSAGES, VALUES, from_answer, from_message, to_answer, to_message, value_of
from fulcrum.rpc.fields import is_kind
from fulcrum.rpc.images import ImageHash
from fulcrum.rpc.tensors import DTYPES
from fulcrum.rpc.v1 import corrections_pb2, inference_pb2, models_pb2, results_pb2, tasks_pb2, tensor_pb2

FILES = (corrections_pb2, inference_pb2, models_pb2, results_pb2, tasks_pb2, tensor_pb2)
CATS = ClassSet(("cat", "dog"))
IDENTITY = Correction("a" * 64, "b" * 64, "visual.blocks.3.resid_post", ())

# Messages without a dataclass of their own: unions, pairs, arrays, envelopes.
ENVELOPES = {
    "Tensor", "Edit", "Condition", "Target", "ImageRef", "Grid", "Interval", "MovedLatent",
    "SweepResponse", "SuggestResponse", "SteerSessionRequest", "SteerSessionResponse",
}  # fmt: skip


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def all_messages():
    return {name: m for f in FILES for name, m in f.DESCRIPTOR.message_types_by_name.items()}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda k: k.__name__)
def test_dataclass_and_message_have_the_same_fields(kind):
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind) if not is_kind(hints[f.name])}
    assert fields == set(MESSAGES[kind].DESCRIPTOR.fields_by_name)


def test_every_message_belongs_to_a_dataclass_or_an_answer():
    known = {m.DESCRIPTOR.name for m in MESSAGES.values()} | {m.DESCRIPTOR.name for m in VALUES} | ENVELOPES
    assert set(all_messages()) - known == set()
    assert set(all_messages()) >= ENVELOPES


def test_every_result_of_the_engine_has_a_message():
    ours = {
        k for k in vars(results).values() if dataclasses.is_dataclass(k) and k.__module__ == results.__name__
    }
    not_on_the_wire = {results.GroupSuggestion}  # of a job
    assert ours - set(MESSAGES) == not_on_the_wire
    assert engine.ImageLatents in MESSAGES


@pytest.mark.parametrize(
    ("union", "message"),
    [(Edit, corrections_pb2.Edit), (Condition, corrections_pb2.Condition), (Target, tasks_pb2.Target)],
    ids=["edits", "conditions", "targets"],
)
def test_the_cases_of_a_oneof_are_the_kinds_of_its_union(union, message):
    kinds = {get_args(typing.get_type_hints(k)["kind"])[0]: k for k in get_args(union)}
    cases = {f.name: f.message_type for f in message.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert {kind: MESSAGES[k].DESCRIPTOR for kind, k in kinds.items()} == cases


def test_every_value_of_an_enum_is_a_literal_of_its_field():
    for kind, message in MESSAGES.items():
        for name, hint in typing.get_type_hints(kind).items():
            field = message.DESCRIPTOR.fields_by_name.get(name)
            if field is None or field.enum_type is None:
                continue
            literals = get_args(hint)
            assert len(field.enum_type.values) == len(literals) + 1, f"{kind.__name__}.{name}"
    assert set(DTYPES) | {0} == set(tensor_pb2.DType.values())


SAME_AS_THE_PROTOCOL = {
    "encode_images": requests.EncodeImages,
    "encode_texts": requests.EncodeTexts,
    "encode_latents": requests.EncodeLatents,
    "predict": requests.Predict,
    "predict_steered": requests.PredictSteered,
    "attribute": requests.Attribute,
    "steer": requests.Steer,
    "sweep": requests.Sweep,
    "suggest": requests.Suggest,
    "load_model": requests.LoadModel,
    "load_sae": requests.LoadSae,
}


def test_requests_have_the_arguments_and_defaults_of_the_engine():
    methods = {n: m for n, m in vars(InferenceEngine).items() if inspect.isfunction(m) and n[0] != "_"}
    assert set(SAME_AS_THE_PROTOCOL) == set(methods)
    for name, method in methods.items():
        expected = {
            "sae" if p.name == "path" else p.name: p.default
            for p in inspect.signature(method).parameters.values()
            if p.name != "self"
        }
        fields = {
            f.name: inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default
            for f in dataclasses.fields(SAME_AS_THE_PROTOCOL[name])
            if f.name != "deterministic"
        }
        assert fields == expected, name


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda k: k.__name__)
def test_a_value_comes_back_as_it_went_in_every_bit(kind):
    @settings(max_examples=25, deadline=None)
    @given(any_of(kind))
    def check(value):
        assert same(from_message(kind, over_the_wire(to_message(value))), value)

    check()


@pytest.mark.parametrize("kind", VALUES, ids=lambda k: k.DESCRIPTOR.name)
def test_an_answer_comes_back_with_its_provenance(kind):
    @settings(max_examples=15, deadline=None)
    @given(any_of(VALUES[kind]), any_of(Provenance))
    def check(value, provenance):
        if "provenance" not in kind.DESCRIPTOR.fields_by_name:
            assert same(value_of(over_the_wire(to_answer(kind, value))), value)
            return
        answered = from_answer(over_the_wire(to_answer(kind, value, provenance)))
        assert same(answered.value, value)
        assert answered.provenance == provenance

    check()


def test_the_hash_of_a_correction_survives_the_wire():
    correction = dataclasses.replace(IDENTITY, edits=(Scale(3, -0.0), Add(4, 1)), task=CATS)
    assert from_message(Correction, over_the_wire(to_message(correction))).sha256 == correction.sha256


def test_what_was_not_sent_has_the_default_of_the_domain():
    message = inference_pb2.AttributeRequest(
        model=models_pb2.ModelRef(model_name="ViT-B-32"),
        sae="folder:lab/sae",
        image=inference_pb2.ImageRef(data=b"x"),
        task=tasks_pb2.ClassSet(names=["cat", "dog"]),
    )
    asked = from_message(requests.Attribute, message)
    assert asked == requests.Attribute(ModelRef("ViT-B-32"), "folder:lab/sae", b"x", CATS)
    assert asked.task.templates == DEFAULT_TEMPLATES


def test_an_empty_image_is_not_a_missing_one():
    asked = requests.EncodeLatents(ModelRef("m"), "s", b"")
    assert from_message(requests.EncodeLatents, over_the_wire(to_message(asked))).image == b""
    with pytest.raises(InvalidRequest, match="EncodeLatents lacks the field 'image'"):
        from_message(
            requests.EncodeLatents, inference_pb2.EncodeLatentsRequest(model={"model_name": "m"}, sae="s")
        )


def test_an_edit_without_its_gain_is_refused_and_not_read_as_zero():
    # 0 suppresses: a client that forgets the field must not silently switch a concept off.
    message = to_message(dataclasses.replace(IDENTITY, edits=(Scale(7, 0.5),)))
    message.edits[0].scale.ClearField("gain")
    with pytest.raises(InvalidRequest, match=r"Correction.edits\[0\].scale lacks the field 'gain'"):
        from_message(Correction, message)


def test_an_alternative_that_is_none_is_refused():
    message = to_message(dataclasses.replace(IDENTITY, edits=(Scale(7, 0.5),)))
    message.edits.add()
    with pytest.raises(
        InvalidRequest, match=r"edits\[1\] has no kind: expected one of \['add', 'affine', 'cap'"
    ):
        from_message(Correction, message)


def test_an_unknown_number_of_an_enum_is_refused():
    message = to_message(requests.Attribute(ModelRef("m"), "s", b"x", CATS))
    message.method = 99
    with pytest.raises(InvalidRequest, match=r"Attribute.method is 99: expected one of"):
        from_message(requests.Attribute, message)
    condition = to_message(LatentCondition(3, ">=", 0.5))
    condition.operator = corrections_pb2.OPERATOR_UNSPECIFIED
    with pytest.raises(InvalidRequest, match="lacks the field 'operator'"):
        from_message(LatentCondition, condition)


def test_what_the_domain_refuses_keeps_its_own_error():
    with pytest.raises(EmptyPrompts):
        from_message(ClassSet, tasks_pb2.ClassSet())
    with pytest.raises(LatentOutOfRange):
        from_message(Scale, corrections_pb2.Scale(latent=-1, gain=1))
    with pytest.raises(InvalidEdit):
        from_message(Scope, corrections_pb2.Scope(kind=corrections_pb2.SCOPE_KIND_ALL, patches=[1]))
    with pytest.raises(UnknownArtifact):
        from_message(
            requests.EncodeLatents,
            inference_pb2.EncodeLatentsRequest(
                model={"model_name": "m"}, sae="s", image={"sha256": "../../etc/passwd"}
            ),
        )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_both_ways(number):
    message = to_message(requests.Sweep(ModelRef("m"), "s", b"x", (1,), (1.0,), CATS))
    message.gains.append(number)
    with pytest.raises(InvalidRequest, match=r"Sweep.gains\[1\] is -?(nan|inf)"):
        from_message(requests.Sweep, message)
    with pytest.raises(InvalidRequest, match="Sweep cannot be sent: gains"):
        to_message(requests.Sweep(ModelRef("m"), "s", b"x", (1,), (number,), CATS))
    # A result that is not a number is no result; it is not the caller's fault either.
    with pytest.raises(ComputationFailed, match="target_changes: holds a number that is not finite"):
        to_message(Controls("matched_latents", np.array([0.0, number]), 0, 1.0))
    with pytest.raises(ComputationFailed):
        to_message(Controls("matched_latents", np.zeros(1), 0, number))
    controls = to_message(Controls("matched_latents", np.zeros(1), 0, 1.0))
    controls.target_changes.data = np.array([number]).tobytes()
    with pytest.raises(InvalidRequest, match="target_changes holds a number that is not finite"):
        from_message(Controls, controls)


@pytest.mark.parametrize(
    "unsendable",
    [
        requests.Steer(ModelRef("m"), "s", b"x", IDENTITY, CATS, seed=2**70),
        requests.Steer(ModelRef("m"), "s", "a path", IDENTITY, CATS),
        requests.Attribute(ModelRef("m"), "s", b"x", CATS, n_latents=2.5),
        requests.Attribute(ModelRef("m"), "s", b"x", CATS, method="shap"),
        requests.EncodeTexts(ModelRef("m"), ("\ud800",)),
        requests.Sweep(ModelRef("m"), "s", b"x", (1,), ("2",), CATS),
    ],
    ids=[
        "beyond 64 bits",
        "a path for an image",
        "half a latent",
        "unknown method",
        "no Unicode",
        "text for a gain",
    ],
)
def test_a_request_that_has_no_message_is_refused_before_it_is_sent(unsendable):
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        to_message(unsendable)


def tensor(**changes):
    fields = {"dtype": tensor_pb2.D_TYPE_FLOAT32, "shape": [2, 3], "data": bytes(24), **changes}
    return results_pb2.DoseResponse(
        gains=fields, logits=fields, class_names=["a"], target_values=fields,
        target={"logit": {"class_name": "a"}}, monotone=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": bytes(23)}, "has 23 bytes"),
        ({"data": b""}, "has 0 bytes"),
        ({"shape": []}, "needs 4"),
        ({"shape": [-2, -3]}, "sizes >= 0"),
        ({"shape": [1] * 9, "data": bytes(4)}, "at most 8 sizes"),
        ({"shape": [2**62, 2**62]}, "has 24 bytes"),
        ({"shape": [0, 2**62], "data": b""}, "beyond what an array can have"),
        ({"shape": [0] + [2**30] * 7, "data": b""}, "beyond what an array can have"),
        ({"dtype": 0}, "has dtype 0"),
        ({"dtype": 77}, "has dtype 77"),
        ({"dtype": tensor_pb2.D_TYPE_INT32}, "expected floats"),
    ],
)
def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(changes, says):
    with pytest.raises(InvalidRequest, match=f"DoseResponse.gains .*{says}"):
        from_message(DoseResponse, tensor(**changes))


def test_latents_that_are_no_integers_are_refused():
    latents = ImageLatents(np.arange(3), np.arange(2), np.ones(2, np.float32), 10)
    message = to_message(latents)
    message.offsets.CopyFrom(message.values)
    with pytest.raises(InvalidRequest, match="expected integers"):
        from_message(ImageLatents, message)


def test_an_array_that_came_in_is_nobody_elses_memory():
    message = to_message(Controls("matched_latents", np.zeros(3), 0, 1.0))
    first, second = from_message(Controls, message), from_message(Controls, message)
    first.target_changes[:] = 7  # as LocalEngine's results, it can be changed
    assert (second.target_changes == 0).all()


def test_arrays_in_any_layout_are_sent_as_what_they_hold():
    array = np.arange(12, dtype=">f4").reshape(3, 4)[::2, ::-1].T
    back = from_message(Controls, to_message(Controls("matched_latents", array, 0, 1.0))).target_changes
    assert (back == array).all()
    assert back.shape == array.shape


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MESSAGES, key=lambda k: k.__name__)), st.binary(max_size=200))
def test_random_bytes_are_a_domain_error_or_a_value(kind, data):
    try:
        message = MESSAGES[kind].FromString(data)
    except DecodeError:
        return
    try:
        value = from_message(kind, message)
    except FulcrumError:
        return
    assert isinstance(value, kind)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_message_with_a_byte_changed_is_a_domain_error_or_a_value(data):
    request = requests.Steer(
        ModelRef("m"), "s", ImageHash("0" * 64), dataclasses.replace(IDENTITY, edits=(Scale(3, 0.5),)), CATS,
        MarginTarget("cat", "dog"),
    )  # fmt: skip
    sent = bytearray(to_message(request).SerializeToString())
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError, FulcrumError):
        from_message(requests.Steer, inference_pb2.SteerRequest.FromString(bytes(sent)))


def test_a_long_list_of_refused_numbers_is_named_by_its_place_not_by_its_content():
    message = to_message(requests.Sweep(ModelRef("m"), "s", b"x", (1,), (1.0,), CATS, LogitTarget("cat")))
    message.gains.extend([1.0] * 500 + [float("nan")])
    with pytest.raises(InvalidRequest) as caught:
        from_message(requests.Sweep, message)
    assert "gains[501]" in str(caught.value)
    assert len(str(caught.value)) < 120


def test_every_call_of_the_service_takes_a_request_and_gives_an_answer_that_can_be_read():
    readable = set(MESSAGES.values()) | set(VALUES)
    streams = {"SweepResponse", "SuggestResponse", "SteerSessionRequest", "SteerSessionResponse"}
    for method in inference_pb2.DESCRIPTOR.services_by_name["Inference"].methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
        for kind in (method.input_type, method.output_type):
            assert kind in {m.DESCRIPTOR for m in readable} or kind.name in streams
