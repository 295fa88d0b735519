"""Who closes the connection gets no answer, and nobody works for them any longer."""

import asyncio
import contextlib
import http.client
import json
import threading

import httpx
import numpy as np
import pytest
from tests.gateway.resources.conftest import events_of

from fulcrum.demo.shipped import demo_model, demo_sae
from fulcrum.domain.errors import Overloaded
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import ImageRecord, ModelRecord, SaeRecord
from fulcrum.rpc.answers import DosePoints

POINTS = DosePoints(np.zeros(1), np.zeros((1, 2)), np.zeros(1))
TASK = {"names": ["cup", "fish"]}


class EndlessEngine:
    """Never answers; says when it began and when it was told to stop."""

    def __init__(self):
        self.began = threading.Event()
        self.stopped = threading.Event()
        self.error = None

    async def sweep(self, *_, **__):
        try:
            yield POINTS
            self.began.set()
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def suggest(self, *_, **__):
        try:
            self.began.set()
            await asyncio.Event().wait()
            yield  # never: it only makes this a stream
        finally:
            self.stopped.set()

    async def attribute(self, *_, **__):
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    steer = predict = encode_latents = attribute

    async def aclose(self):
        pass


@pytest.fixture
def engine():
    return EndlessEngine()


@pytest.fixture
def asked(platform, local_engine):
    """Ids of things that are ready without the engine."""
    user, project = platform.admin_user.id, platform.project.id
    info, sae_info = local_engine.load_model(demo_model()), local_engine.load_sae(demo_sae(), demo_model())
    ref = ModelRef("folder:demo/clip")
    model = ModelRecord(new_id("mdl"), project, "m", ref, user, now(), "ready", info)
    sae = SaeRecord(new_id("sae"), project, "s", model.id, "folder:demo/sae", user, now(), "ready", sae_info)
    image = ImageRecord(new_id("img"), project, "0" * 64, "image/png", 1, 1, 1, "a.png", user, now())
    with platform.store.write() as tx:
        tx.models.add(model)
        tx.saes.add(sae)
        tx.images.add(image)
    question = {"sae_id": sae.id, "task": TASK}
    path = f"/v1/images/{image.id}"
    return {
        "explain": ("POST", f"{path}:explain", question),
        "steer": ("POST", f"{path}:steer", question | {"edits": []}),
        "sweep": ("POST", f"{path}:sweep", question | {"latents": [1], "gains": [0.0]}),
        "suggest": ("POST", f"{path}:suggest", question | {"wanted": "cup"}),
        "predict": ("POST", "/v1/predictions", {"model_id": model.id, "image_ids": [image.id], "task": TASK}),
        "latents": ("GET", f"{path}/latents?sae_id={sae.id}", None),
    }


@pytest.mark.parametrize("kind", ["explain", "steer", "sweep", "suggest", "predict", "latents"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["plain", "with a key"])
def test_work_stops_when_its_asker_leaves(platform, engine, asked, kind, headers):
    method, path, body = asked[kind]
    sent = {"Content-Type": "application/json", "Authorization": platform.admin.headers["authorization"]}
    url = httpx.URL(platform.url)
    with contextlib.closing(http.client.HTTPConnection(url.host, url.port)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), sent | headers)
        assert engine.began.wait(10)
        assert not engine.stopped.is_set()
    assert engine.stopped.wait(10)
    assert platform.admin.get("/v1/results").json()["items"] == []


def test_points_come_before_the_end_of_the_work(platform, engine, asked):
    method, path, body = asked["sweep"]
    with platform.admin.stream(method, path, json=body) as answer:
        parts = answer.iter_text()  # kept: httpx closes the connection with its last reference
        first = next(parts)
        assert not engine.stopped.is_set()
    assert events_of(first) == [("points", {"gains": [0.0], "logits": [[0.0, 0.0]], "target_values": [0.0]})]
    assert engine.stopped.wait(10)


def test_a_failure_in_the_middle_of_a_stream_ends_it_with_a_problem(platform, engine, asked):
    engine.error = Overloaded("too much to do", 3.0)
    method, path, body = asked["sweep"]
    answer = platform.admin.request(method, path, json=body)
    (_, _), (name, problem) = events_of(answer.text)
    assert name == "error"
    assert (problem["status"], problem["reason"]) == (503, "OVERLOADED")
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_bug_in_the_middle_of_a_stream_shows_nothing_of_the_inside(platform, engine, asked):
    engine.error = RuntimeError("secret of the inside")
    method, path, body = asked["sweep"]
    answer = platform.admin.request(method, path, json=body)
    assert "secret" not in answer.text
    assert json.loads(answer.text.split("data: ")[-1])["reason"] == "INTERNAL_ERROR"
