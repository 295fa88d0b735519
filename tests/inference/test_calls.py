"""Every call over a real socket, against the same engine without a service."""

import math

import grpc
import numpy as np
import pytest
from tests.inference.running import MODEL, SAE, png

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    InvalidTarget,
    LatentOutOfRange,
    PayloadTooLarge,
    SaeDoesNotFit,
    UnknownModel,
    UnknownSae,
)
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet, LogitTarget
from fulcrum.rpc import requests
from fulcrum.rpc.convert import from_answer, from_message, to_message
from fulcrum.rpc.v1 import inference_pb2 as pb
from fulcrum.rpc.v1.inference_pb2_grpc import InferenceStub

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def image():
    return png(1)


@pytest.fixture(scope="module")
def attribution(local, local_names, image, task):
    return local.attribute(*local_names, image, task)


@pytest.fixture(scope="module")
def correction(local, local_names, attribution):
    edits = [Scale(found.latent, 0.0) for found in attribution.latents[:2]]
    return local.correction(*local_names, edits)


@pytest.fixture
def stub(service):
    with service.channel() as channel:
        yield InferenceStub(channel)


def same_prediction(ours, theirs):
    assert ours.class_names == theirs.class_names
    np.testing.assert_allclose(ours.logits, theirs.logits, **CLOSE)
    np.testing.assert_allclose(ours.probs, theirs.probs, **CLOSE)


def test_a_model_is_described_under_the_name_it_was_asked_for(remote, local, local_names):
    info, known = remote.load_model(MODEL), local.load_model(local_names[0])
    assert info.ref == MODEL
    assert info.weights_sha256 == known.weights_sha256
    assert info.hook_points == known.hook_points


def test_an_sae_is_described_under_the_name_it_was_asked_for(remote, local, local_names):
    info, known = remote.load_sae(SAE, MODEL), local.load_sae(local_names[1], local_names[0])
    assert info.name == SAE
    assert (info.weights_sha256, info.hook_point, info.d_sae) == (
        known.weights_sha256,
        known.hook_point,
        known.d_sae,
    )


def test_no_answer_names_a_path(stub, remote):
    remote.load_sae("untrained:topk:64:4", MODEL)
    for message in (
        stub.LoadModel(to_message(requests.LoadModel(MODEL))),
        stub.LoadSae(to_message(requests.LoadSae("untrained:topk:64:4", MODEL))),
        stub.ListModels(pb.ListModelsRequest()),
    ):
        assert b"local-dir" not in message.SerializeToString()
        assert b"weights/clip" not in message.SerializeToString()


def test_loaded_models_are_listed_once(remote):
    remote.warm_model(MODEL, SAE)
    assert [info.ref for info in remote.list_models()].count(MODEL) == 1


def test_embeddings_of_images_and_texts(remote, local, local_names, image):
    model, _ = local_names
    images = [image, png(2)]
    np.testing.assert_allclose(
        remote.encode_images(MODEL, images), local.encode_images(model, images), **CLOSE
    )
    texts = ["a photo of a cup", "a cup"]
    np.testing.assert_allclose(remote.encode_texts(MODEL, texts), local.encode_texts(model, texts), **CLOSE)


def test_latents_of_an_image(remote, local, local_names, image):
    ours, theirs = remote.encode_latents(MODEL, SAE, image), local.encode_latents(*local_names, image)
    assert ours.d_sae == theirs.d_sae
    assert ours.latents.tolist() == theirs.latents.tolist()
    assert ours.offsets.tolist() == theirs.offsets.tolist()
    np.testing.assert_allclose(ours.values, theirs.values, **CLOSE)


def test_predictions(remote, local, local_names, image, task):
    images = [image, png(2), png(3)]
    for ours, theirs in zip(
        remote.predict(MODEL, images, task), local.predict(local_names[0], images, task), strict=True
    ):
        same_prediction(ours, theirs)


def test_predictions_under_a_correction(remote, local, local_names, image, task, correction):
    images = [image, png(2)]
    found = remote.predict_steered(MODEL, SAE, images, correction, task)
    known = local.predict_steered(*local_names, images, correction, task)
    for ours, theirs in zip(found, known, strict=True):
        same_prediction(ours.before, theirs.before)
        same_prediction(ours.after, theirs.after)
        assert ours.changed == theirs.changed
    assert found[0].changed


@pytest.mark.parametrize("method", ["act_x_grad", "integrated_gradients", "ablation"])
def test_attribution(remote, local, local_names, image, task, method):
    ours = remote.attribute(MODEL, SAE, image, task, method=method, n_latents=5, n_steps=8, per_token=True)
    theirs = local.attribute(*local_names, image, task, method=method, n_latents=5, n_steps=8, per_token=True)
    assert (ours.method, ours.target, ours.grid, ours.hook_point) == (
        method,
        theirs.target,
        theirs.grid,
        theirs.hook_point,
    )
    assert [a.latent for a in ours.latents] == [a.latent for a in theirs.latents]
    for a, b in zip(ours.latents, theirs.latents, strict=True):
        assert math.isclose(a.score, b.score, rel_tol=1e-3, abs_tol=1e-4)
        assert math.isclose(a.measured_effect, b.measured_effect, rel_tol=1e-3, abs_tol=1e-4)
        np.testing.assert_allclose(a.per_token, b.per_token, rtol=1e-3, atol=1e-4)


def test_steering(remote, local, local_names, image, task, correction):
    ours = remote.steer(MODEL, SAE, image, correction, task, n_controls=4, seed=7)
    theirs = local.steer(*local_names, image, correction, task, n_controls=4, seed=7)
    same_prediction(ours.before, theirs.before)
    same_prediction(ours.after, theirs.after)
    assert ours.diagnostics.changed
    assert ours.diagnostics.fired == theirs.diagnostics.fired
    assert [c.kind for c in ours.controls] == [c.kind for c in theirs.controls]
    for a, b in zip(ours.controls, theirs.controls, strict=True):
        np.testing.assert_allclose(a.target_changes, b.target_changes, **CLOSE)


def test_a_sweep(remote, local, local_names, image, task, attribution):
    latents, gains = [attribution.latents[0].latent], [0.0, 0.5, 1.0, 2.0]
    ours = remote.sweep(MODEL, SAE, image, latents, gains, task)
    theirs = local.sweep(*local_names, image, latents, gains, task)
    np.testing.assert_allclose(ours.logits, theirs.logits, **CLOSE)
    assert ours.gains.tolist() == theirs.gains.tolist()
    assert (ours.target, ours.monotone) == (theirs.target, theirs.monotone)


def test_the_points_of_a_sweep_come_before_its_end(stub, image, task):
    question = requests.Sweep(MODEL, SAE, image, (3,), (0.0, 1.0), task, LogitTarget(task.names[0]))
    events = list(stub.Sweep(to_message(question)))
    assert [e.WhichOneof("event") for e in events] == ["points", "done"]
    answer = from_answer(events[-1].done)
    assert answer.provenance.sae_sha256 is not None
    assert len(answer.value.gains) == 2


def test_suggestions_come_one_by_one_and_all_at_the_end(stub, local, local_names, image, task):
    before = local.predict(local_names[0], [image], task)[0]
    question = requests.Suggest(MODEL, SAE, image, task, before.runner_up, 3)
    events = list(stub.Suggest(to_message(question)))
    assert [e.WhichOneof("event") for e in events] == ["suggestion"] * (len(events) - 1) + ["done"]
    done = from_answer(events[-1].done)
    theirs = list(local.suggest(*local_names, image, task, before.runner_up, 3))
    assert [s.edits for s in done.value] == [s.edits for s in theirs]
    assert len(done.value) == len(events) - 1


def test_every_answer_says_how_it_came_about(stub, local, local_names, image, task):
    question = to_message(requests.Attribute(MODEL, SAE, png(99), task, deterministic=True))
    first, second = (from_answer(stub.Attribute(question)).provenance for _ in range(2))
    info, sae = local.load_model(local_names[0]), local.load_sae(local_names[1], local_names[0])
    assert first.model_sha256 == info.weights_sha256
    assert first.sae_sha256 == sae.weights_sha256
    assert first.hook_point == str(sae.hook_point)
    assert first.preprocess_sha256 == info.preprocess_sha256
    assert (first.device, first.dtype, first.deterministic) == ("cpu", "float32", True)
    assert first.batch_size >= 1
    assert first.compute_ms > 0
    assert first.queue_ms >= 0
    assert (first.prefix_cached, second.prefix_cached) == (False, True)
    assert first.fulcrum_version
    assert first.torch_version
    plain = from_answer(stub.Predict(to_message(requests.Predict(MODEL, (image,), task)))).provenance
    assert (plain.sae_sha256, plain.hook_point, plain.deterministic) == (None, None, False)


def test_errors_arrive_as_themselves(remote, local, local_names, image, task, correction):
    for error, call in {
        UnknownModel: lambda: remote.load_model(ModelRef("folder:demo/nothing")),
        UnknownSae: lambda: remote.load_sae("folder:demo/clip", MODEL),
        InvalidTarget: lambda: remote.attribute(MODEL, SAE, image, task, LogitTarget("zebra")),
        LatentOutOfRange: lambda: remote.sweep(MODEL, SAE, image, [10**6], [0.0], task),
        SaeDoesNotFit: lambda: remote.steer(
            MODEL, SAE, image, Correction("0" * 64, "0" * 64, correction.hook_point, ()), task
        ),
    }.items():
        with pytest.raises(error) as raised:
            call()
        assert "local-dir" not in str(raised.value)
        assert "/demo/weights" not in str(raised.value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e, image, c, task: e.steer(MODEL, SAE, image, c, task, n_controls=10**9),
        lambda e, image, c, task: e.attribute(MODEL, SAE, image, task, method="ablation", n_latents=10**9),
        lambda e, image, c, task: e.attribute(
            MODEL, SAE, image, task, method="integrated_gradients", n_steps=10**9
        ),
        lambda e, image, c, task: e.sweep(MODEL, SAE, image, [1], [0.5] * 10**4, task),
        lambda e, image, c, task: list(e.suggest(MODEL, SAE, image, task, task.names[0], 10**6)),
        lambda e, image, c, task: e.encode_texts(MODEL, ["a"] * 10**6),
        lambda e, image, c, task: e.predict(MODEL, [image], ClassSet(tuple(str(n) for n in range(10**6)))),
    ],
)
def test_a_line_of_text_cannot_ask_for_a_day_of_work(remote, image, task, correction, ask):
    with pytest.raises(PayloadTooLarge, match="at most"):
        ask(remote, image, correction, task)


def test_the_service_describes_itself(service):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with service.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        response = next(iter(stub.ServerReflectionInfo(iter([asked]))))
    names = {s.name for s in response.list_services_response.service}
    assert {"fulcrum.rpc.v1.Inference", "grpc.health.v1.Health"} <= names


def test_an_unknown_call_is_unimplemented(service):
    with service.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/fulcrum.rpc.v1.Inference/Nonsense")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_values_survive_both_directions(stub, image, task):
    """What the service reads is what was sent, defaults included."""
    request = requests.Attribute(MODEL, SAE, image, task)
    assert from_message(requests.Attribute, to_message(request)) == request
