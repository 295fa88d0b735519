"""Green only where a forward passes."""

import asyncio
import shutil
import threading
import time

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.torch import load_file, save_file
from tests.inference.running import MODEL, SAE, Running, png

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.errors import ComputationFailed, Overloaded
from fulcrum.domain.models import ModelRef
from fulcrum.inference.health import Health
from fulcrum.inference.server import engine_of


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


class Broken:
    """An engine whose forward fails, hangs or gives nonsense when it is told to."""

    def __init__(self, settings, batcher):
        self._engine = engine_of(settings, batcher)
        self.fail = self.nonsense = False
        self.hang = threading.Event()
        self.hang.set()

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def encode_images(self, model, images):
        embeddings = self._engine.encode_images(model, images)

        def work():
            assert self.hang.wait(20)

        self._engine.batcher.run_alone(work)
        if self.fail:
            raise RuntimeError("CUDA says no")
        return embeddings * 3 if self.nonsense else embeddings


@pytest.fixture
def broken():
    made = []

    def make(settings, batcher):
        made.append(Broken(settings, batcher))
        return made[0]

    options = {"canary_every_s": 0.1, "canary_timeout_s": 0.5, "stall_s": 0.4, "drain_s": 0.5}
    with Running(make, canary_model="folder:demo/clip", **options) as running:
        running.engine = made[0]
        with running.client() as client:
            assert until(client.health)
            yield running, client
            made[0].hang.set()


def test_a_service_whose_forward_fails_is_not_healthy_until_it_works_again(broken):
    running, client = broken
    running.engine.fail = True
    assert until(lambda: not client.health())
    assert "CUDA says no" in running.server.health.problem
    running.engine.fail = False
    assert until(client.health)


def test_a_forward_that_gives_nonsense_is_no_forward(broken):
    running, client = broken
    running.engine.nonsense = True
    assert until(lambda: not client.health())
    running.engine.nonsense = False
    assert until(client.health)


def test_a_device_that_hangs_shows_although_calls_are_still_taken(broken, task):
    running, client = broken
    running.engine.hang.clear()
    assert until(lambda: not client.health())
    assert running.server.health.problem
    running.engine.hang.set()
    assert until(client.health)
    assert client.predict(MODEL, [png()], task)


def test_without_its_canary_model_a_service_never_becomes_healthy():
    with (
        Running(canary_model="folder:demo/nothing", canary_every_s=0.05) as running,
        running.client() as client,
    ):
        assert until(lambda: "does not exist" in running.server.health.problem)
        assert not client.health()


def test_a_service_without_models_is_healthy_when_its_device_computes():
    with Running() as running, running.client() as client:
        assert until(client.health)
        assert client.list_models() == []


def test_watchers_are_told_when_health_changes(broken):
    running, _ = broken
    with running.channel() as channel:
        seen = []
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        seen.append(next(stream).status)
        running.engine.fail = True
        seen.append(next(stream).status)
        running.engine.fail = False
        seen.append(next(stream).status)
        stream.cancel()
    status = health_pb2.HealthCheckResponse
    assert seen == [status.SERVING, status.NOT_SERVING, status.SERVING]


def test_a_busy_device_is_not_a_broken_one():
    """The canary is late, and the device progresses all the time."""
    assert _run(canary=lambda: time.sleep(0.3), stalled_s=lambda: 0.01, timeout_s=0.1) == [True]


def test_a_canary_that_hangs_while_nothing_waits_is_not_healthy():
    assert _run(canary=lambda: time.sleep(0.5), stalled_s=lambda: None, timeout_s=0.1) == [False]


def test_a_full_queue_that_moves_is_healthy():
    def canary():
        raise Overloaded("full", 1.0)

    assert _run(canary, stalled_s=lambda: 0.01) == [True]
    assert _run(canary, stalled_s=lambda: 99.0) == [False]


def test_a_canary_that_fails_is_not_healthy():
    def canary():
        raise ComputationFailed("nan")

    assert _run(canary, stalled_s=lambda: None) == [False]


def _run(canary, stalled_s, timeout_s=5.0):
    """Health after a good first check and then some with `canary`."""

    async def run():
        checks = iter([lambda: None])
        health = Health(
            ("",),
            lambda: next(checks, canary)(),
            stalled_s=stalled_s,
            every_s=0.02,
            timeout_s=timeout_s,
            stall_s=1.0,
        )
        await health.start()
        await asyncio.sleep(0.25)
        serving = health.serving
        await health.stop()
        return [serving]

    return asyncio.run(run())


def test_the_warm_model_is_what_the_canary_runs(broken):
    """The check goes through the model that people use, not through one of its own."""
    running, client = broken
    client.warm_model(MODEL, SAE)
    before = running.server.batcher.counts.batches
    assert until(lambda: running.server.batcher.counts.batches > before)


def test_a_model_that_gives_no_numbers_does_not_turn_a_service_red_for_everyone(tmp_path, task):
    shutil.copytree(WEIGHTS / "clip", tmp_path / "broken")
    (weights,) = (tmp_path / "broken").glob("*.safetensors")
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    tensors["visual.proj"] = tensors["visual.proj"] * 1e25
    tensors["visual.ln_post.weight"] = tensors["visual.ln_post.weight"] * 1e25
    save_file(tensors, weights)
    folders = {"demo": WEIGHTS, "lab": tmp_path}
    with Running(folders=folders, canary_every_s=0.05) as running, running.client() as client:
        assert client.predict(MODEL, [png()], task)
        assert until(client.health)
        with pytest.raises(ComputationFailed):
            client.predict(ModelRef("folder:lab/broken"), [png()], task)
        before = running.server.batcher.counts.batches
        assert until(lambda: running.server.batcher.counts.batches > before + 3)
        assert client.health()


def test_a_check_that_is_itself_at_fault_is_not_green():
    class Panic(BaseException):
        """As libraries in Rust raise it."""

    def panics():
        raise Panic("at the disco")

    assert _run(panics, stalled_s=lambda: None) == [False]
    looks = iter([None] * 4)
    assert _run(canary=lambda: None, stalled_s=lambda: next(looks)) == [False]


def test_a_stop_that_comes_with_the_outcome_of_a_check_is_not_forgotten():
    async def run():
        outcome = threading.Event()
        health = Health(
            ("",), lambda: outcome.wait(5), stalled_s=lambda: None, every_s=1, timeout_s=5.0, stall_s=1.0
        )
        await health.start()
        await asyncio.sleep(0.05)
        outcome.set()
        time.sleep(0.1)  # the loop sees the outcome of the check and the stop in one turn
        await asyncio.sleep(0)
        await asyncio.wait_for(health.stop(), 5)

    for _ in range(3):
        asyncio.run(run())
