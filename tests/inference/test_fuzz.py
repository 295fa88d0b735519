"""Whatever comes: a clear status, the service alive, the next request right."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.inference.running import MODEL, SAE, Running, png

from fulcrum.domain.codec import to_json
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    ComputationFailed,
    FulcrumError,
    InternalError,
    InvalidInput,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
)
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet, LogitTarget
from fulcrum.rpc import requests
from fulcrum.rpc.convert import to_message
from fulcrum.rpc.v1 import inference_pb2 as pb

TASK = ClassSet(("cup", "star", "fish"), ("a {}",))
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MORE = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))

UNARY = {
    "EncodeImages": pb.EncodeImagesRequest,
    "EncodeTexts": pb.EncodeTextsRequest,
    "EncodeLatents": pb.EncodeLatentsRequest,
    "Predict": pb.PredictRequest,
    "PredictSteered": pb.PredictSteeredRequest,
    "Attribute": pb.AttributeRequest,
    "Steer": pb.SteerRequest,
    "LoadModel": pb.LoadModelRequest,
    "LoadSae": pb.LoadSaeRequest,
    "ListModels": pb.ListModelsRequest,
    "WarmModel": pb.WarmModelRequest,
}
STREAMING = {"Sweep": pb.SweepRequest, "Suggest": pb.SuggestRequest}


@pytest.fixture(scope="module")
def target(local, local_names):
    """A service of these tests' own, and a question whose answer is known."""
    correction = local.correction(*local_names, [Scale(3, 0.5)])
    with Running() as running, running.client(deterministic=True) as client:
        client.warm_model(MODEL, SAE)

        def ask():
            return to_json(client.steer(MODEL, SAE, png(1), correction, TASK, n_controls=2))

        running.ask, running.known = ask, ask()
        running.valid = _valid(correction)
        yield running


def _valid(correction):
    """One good request for every call."""
    model, image = MODEL, png(1, (16, 16))
    return {
        "EncodeImages": requests.EncodeImages(model, (image, image)),
        "EncodeTexts": requests.EncodeTexts(model, ("a cup", "a star")),
        "EncodeLatents": requests.EncodeLatents(model, SAE, image),
        "Predict": requests.Predict(model, (image,), TASK),
        "PredictSteered": requests.PredictSteered(model, SAE, (image,), correction, TASK),
        "Attribute": requests.Attribute(
            model, SAE, image, TASK, LogitTarget("cup"), "act_x_grad", 3, 4, True
        ),
        "Steer": requests.Steer(model, SAE, image, correction, TASK, LogitTarget("cup"), 2, 5),
        "Sweep": requests.Sweep(model, SAE, image, (3,), (0.0, 2.0), TASK, LogitTarget("cup")),
        "Suggest": requests.Suggest(model, SAE, image, TASK, "fish", 2),
        "LoadModel": requests.LoadModel(model),
        "LoadSae": requests.LoadSae(SAE, model),
        "WarmModel": requests.WarmModel(model, SAE),
    }


def send(running, method, data):
    """The answer's bytes (of the last event of a stream), or the domain error."""
    if method in UNARY:
        return running.send(data, method)
    return running.send_to_stream(data, method)


def well_answered(running, method, data):
    """An answer, or an error that says what was wrong: never a fault of ours, never a silence."""
    try:
        send(running, method, data)
    except InternalError as error:
        raise AssertionError(f"{method} fell over {data!r}") from error
    except FulcrumError as error:
        if not str(error):
            raise AssertionError(f"{method} refused {data!r} without a word") from error
        return error
    return None


@FEW
@given(method=st.sampled_from([*UNARY, *STREAMING]), data=st.binary(max_size=300))
def test_random_bytes(target, method, data):
    well_answered(target, method, data)


@MORE
@given(
    method=st.sampled_from([*UNARY, *STREAMING]).filter(lambda m: m != "ListModels"),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 10**6)),
)
def test_good_messages_with_changed_bytes(target, method, places, cut):
    data = bytearray(to_message(target.valid[method]).SerializeToString())
    for place, byte in places:
        data[place % len(data)] = byte
    well_answered(target, method, bytes(data[: cut % len(data)] if cut is not None else data))


def test_after_all_that_the_next_answer_has_the_same_bits(target):
    assert target.ask() == target.known
    assert target.server.workers.n_calls == 0


def changed(request, **fields):
    message = to_message(request)
    for path, value in fields.items():
        *parents, name = path.split("__")
        part = message
        for parent in parents:
            part = (
                getattr(part, parent)[0]
                if hasattr(getattr(part, parent), "append")
                else getattr(part, parent)
            )
        field = getattr(part, name)
        if hasattr(field, "append") and not isinstance(field, str | bytes):
            del field[:]
            field.extend(value)
        else:
            setattr(part, name, value)
    return message.SerializeToString()


NAN, INF = float("nan"), float("inf")


NO_SENSE = [
    ("Sweep", {"gains": [0.0, NAN]}),
    ("Sweep", {"gains": [INF]}),
    ("Sweep", {"gains": []}),
    ("Sweep", {"latents": []}),
    ("Sweep", {"latents": [-1]}),
    ("Sweep", {"latents": [2**62]}),
    ("Sweep", {"latents": [3, 3]}),
    ("Steer", {"correction__edits__scale__gain": NAN}),
    ("Steer", {"correction__edits__scale__gain": -INF}),
    ("Steer", {"correction__edits__scale__latent": -5}),
    ("Steer", {"correction__edits__scale__latent": 2**40}),
    ("Steer", {"correction__hook_point": "visual.blocks.999999.resid_post"}),
    ("Steer", {"correction__hook_point": "\x00" * 1000}),
    ("Steer", {"correction__scope__kind": 99}),
    ("Steer", {"correction__scope__kind": 4, "correction__scope__patches": [2**50]}),
    ("Steer", {"correction__scope__kind": 4, "correction__scope__patches": [-1]}),
    ("Steer", {"n_controls": -1}),
    ("Steer", {"n_controls": 2**62}),
    ("Steer", {"target__logit__class_name": ""}),
    ("Attribute", {"n_latents": 0}),
    ("Attribute", {"n_latents": -3}),
    ("Attribute", {"n_steps": 0, "method": 2}),
    ("Attribute", {"n_steps": -1, "method": 2}),
    ("Attribute", {"method": 77}),
    ("Attribute", {"task__names": []}),
    ("Attribute", {"task__names": ["cup", "cup"]}),
    ("Attribute", {"task__names": ["   "]}),
    ("Attribute", {"task__templates": ["no place"]}),
    ("Attribute", {"task__templates": ["{} {}"]}),
    ("Attribute", {"task__names": ["word " * 400, "b"]}),
    ("Attribute", {"task__names": ["\x00", "\U0001f600" * 50]}),
    ("Attribute", {"image__sha256": "0" * 64}),
    ("Attribute", {"image__sha256": "../../etc/passwd"}),
    ("Attribute", {"image__data": b""}),
    ("Attribute", {"model__model_name": "x" * 10**6}),
    ("Attribute", {"model__model_name": "folder:demo/clip", "model__pretrained": "openai"}),
    ("Attribute", {"sae": "untrained:topk:8:9999999"}),
    ("Attribute", {"sae": "untrained:topk:0:0"}),
    ("Attribute", {"sae": "untrained:topk:64:4@visual.blocks.77.resid_post"}),
    ("Attribute", {"sae": "untrained:topk:64:4@text.blocks.1.resid_post"}),
    ("Attribute", {"sae": ""}),
    ("Suggest", {"wanted": "zebra"}),
    ("Suggest", {"max_latents": 0}),
    ("Suggest", {"max_latents": -1}),
    ("Suggest", {"task__names": ["cup"]}),
    ("EncodeTexts", {"texts": []}),
    ("EncodeImages", {"images": []}),
    ("Predict", {"images": []}),
    ("LoadModel", {"ref__model_name": "folder:demo/../demo/clip"}),
    ("LoadModel", {"ref__pretrained": "/etc/passwd"}),
    ("LoadSae", {"sae": "artifact:../../x:y"}),
]


@pytest.mark.parametrize("n", range(len(NO_SENSE)), ids=lambda n: f"{NO_SENSE[n][0]}-{n}")
def test_values_that_make_no_sense_are_refused_with_words(target, n):
    method, fields = NO_SENSE[n]
    error = well_answered(target, method, changed(target.valid[method], **fields))
    assert isinstance(error, InvalidInput | NotFound), f"{fields}: {error!r}"


def test_a_push_beyond_all_numbers_could_not_be_computed_and_says_so(target, local, local_names):
    latent = local.encode_latents(*local_names, png(1, (16, 16))).latents[0]
    for gain in (1e300, -1e300):
        fields = {"correction__edits__scale__latent": int(latent), "correction__edits__scale__gain": gain}
        error = well_answered(target, "Steer", changed(target.valid["Steer"], **fields))
        assert isinstance(error, ComputationFailed)
        error = well_answered(
            target, "Sweep", changed(target.valid["Sweep"], latents=[int(latent)], gains=[gain])
        )
        assert isinstance(error, ComputationFailed)


def test_seeds_of_any_size_are_fine(target):
    for seed in (-1, 2**63 - 1, -(2**63)):
        assert well_answered(target, "Steer", changed(target.valid["Steer"], seed=seed)) is None


def _png_of(width, height):
    """A PNG whose header promises more than it holds."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )


@FEW
@given(
    cut=st.integers(0, 10**6),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
)
def test_damaged_images(target, cut, flips):
    data = bytearray(png(3, (40, 24)))
    for place, byte in flips:
        data[place % len(data)] = byte
    question = requests.Predict(MODEL, (bytes(data[: 1 + cut % len(data)]),), TASK)
    error = well_answered(target, "Predict", to_message(question).SerializeToString())
    assert error is None or isinstance(error, InvalidInput)


def test_images_that_promise_or_hold_too_much(target):
    for data in (
        _png_of(60_000, 60_000),
        _png_of(0, 0),
        _png_of(2**31 - 1, 1),
        b"\x89PNG\r\n\x1a\n" + b"x" * (33 << 20),
    ):
        question = requests.Predict(MODEL, (data,), TASK)
        error = well_answered(target, "Predict", to_message(question).SerializeToString())
        assert isinstance(error, InvalidInput)


def test_images_of_every_mode_are_answered(target):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        file = io.BytesIO()
        pixels = np.arange(64 * 64).reshape(64, 64)
        picture = Image.fromarray(pixels.astype(np.uint16)) if mode == "I;16" else Image.new(mode, (64, 64))
        picture.save(file, "PNG")
        question = requests.Predict(MODEL, (file.getvalue(),), TASK)
        assert well_answered(target, "Predict", to_message(question).SerializeToString()) is None


def test_a_message_beyond_the_limit(target):
    question = requests.EncodeTexts(MODEL, ("a" * (65 << 20),))
    with pytest.raises(PayloadTooLarge):
        target.send(to_message(question).SerializeToString(), "EncodeTexts")


def test_bytes_that_are_no_message_say_so(target):
    for method in (*UNARY, *STREAMING):
        with pytest.raises(InvalidRequest, match="not a message"):
            send(target, method, b"\xff\xff\xff\xff")


def test_a_long_message_of_an_error_still_arrives(target):
    for name in ("ß" * 5000, "\U0001f600" * 3000, "a" * 10**6):
        with target.client() as client, pytest.raises(NotFound, match="can be asked for"):
            client.load_model(ModelRef(name))


def test_at_the_end_the_next_answer_has_the_same_bits_still(target):
    assert target.ask() == target.known
    assert target.server.workers.n_calls == 0
    assert target.server.health.serving
