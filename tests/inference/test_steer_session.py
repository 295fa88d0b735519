"""A slider's session over a real socket."""

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest
from tests.inference.running import MODEL, SAE, Running, png

from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    InvalidRequest,
    LatentOutOfRange,
    SaeDoesNotFit,
    ServiceUnavailable,
    UnknownSae,
)
from fulcrum.domain.provenance import Answered
from fulcrum.inference.server import engine_of
from fulcrum.rpc import requests
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.convert import to_message
from fulcrum.rpc.errors import from_rpc_error
from fulcrum.rpc.v1 import inference_pb2 as pb
from fulcrum.rpc.v1.inference_pb2_grpc import InferenceStub


@pytest.fixture(scope="module")
def latent(local, local_names, task):
    return local.attribute(*local_names, png(1), task).latents[0].latent


def correction_of(local, local_names, latent, gain):
    return local.correction(*local_names, [Scale(latent, gain)])


@pytest.fixture
def at(local, local_names, latent):
    return lambda gain: correction_of(local, local_names, latent, gain)


def test_each_move_of_a_slow_hand_is_answered(service, local, local_names, at, task):
    async def run():
        answers = []
        async with (
            AsyncRemoteEngine(service.address) as engine,
            engine.steer_session(MODEL, SAE, png(1), task, user="ann") as session,
        ):
            stream = aiter(session)
            for gain in (0.0, 0.5, 2.0):
                sent = await session.move(at(gain))
                answer = await anext(stream)
                assert answer.sequence == sent
                answers.append(answer.outcome)
            await session.done_moving()
            assert [left async for left in stream] == []
        return answers

    for gain, outcome in zip((0.0, 0.5, 2.0), asyncio.run(run()), strict=True):
        assert isinstance(outcome, Answered)
        known = local.steer(*local_names, png(1), at(gain), task, n_controls=0)
        np.testing.assert_allclose(outcome.value.after.logits, known.after.logits, rtol=1e-4, atol=1e-4)
        assert outcome.value.controls == ()


class Slow:
    """Steering waits at a gate, so that moves can overtake each other for certain."""

    def __init__(self, settings, batcher):
        self._engine = engine_of(settings, batcher)
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.n_steers = 0

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def steer(self, *arguments):
        self.n_steers += 1
        self.entered.release()
        assert self.gate.acquire(timeout=20)
        return self._engine.steer(*arguments)


def test_overtaken_moves_are_dropped_and_the_newest_is_answered(at, task):
    made = []

    def make(settings, batcher):
        made.append(Slow(settings, batcher))
        return made[0]

    async def run(running):
        async with (
            AsyncRemoteEngine(running.address) as engine,
            engine.steer_session(MODEL, SAE, png(1), task, user="ann") as session,
        ):
            first = await session.move(at(0.0))
            await asyncio.to_thread(made[0].entered.acquire)
            moves = [await session.move(at(gain / 100)) for gain in range(1, 50)]
            await session.done_moving()
            await asyncio.sleep(0.3)  # all of them have arrived
            made[0].gate.release(2)
            answers = [answer async for answer in session]
        return first, moves, answers

    with Running(make) as running:
        first, moves, answers = asyncio.run(run(running))
    assert [a.sequence for a in answers] == [first, moves[-1]]
    assert made[0].n_steers == 2


def test_a_refused_move_is_its_own_answer_and_the_session_goes_on(service, local, local_names, at, task):
    async def run():
        async with (
            AsyncRemoteEngine(service.address) as engine,
            engine.steer_session(MODEL, SAE, png(1), task, user="ann") as session,
        ):
            stream = aiter(session)
            outcomes = []
            for correction in (correction_of(local, local_names, 10**6, 0.0), at(0.0)):
                await session.move(correction)
                outcomes.append((await anext(stream)).outcome)
        return outcomes

    refused, answered = asyncio.run(run())
    assert isinstance(refused, LatentOutOfRange)
    assert isinstance(answered, Answered)


def test_a_correction_of_another_sae_is_refused_in_a_session_too(service, local, local_names, at, task):
    async def run():
        async with (
            AsyncRemoteEngine(service.address) as engine,
            engine.steer_session(MODEL, "untrained:topk:64:4", png(1), task, user="ann") as session,
        ):
            await session.move(at(0.0))
            return (await anext(aiter(session))).outcome

    assert isinstance(asyncio.run(run()), SaeDoesNotFit)


def send(service, messages):
    with service.channel() as channel:
        try:
            return list(InferenceStub(channel).SteerSession(iter(messages), timeout=20))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


@pytest.fixture
def opening(task):
    opened = requests.SessionOpening(MODEL, SAE, png(1), task)
    return pb.SteerSessionRequest(open=to_message(opened))


def test_messages_out_of_order_end_the_session(service, opening, at):
    def move(sequence):
        return pb.SteerSessionRequest(move=to_message(requests.SessionMove(sequence, at(0.0))))

    for messages in (
        [move(1)],
        [pb.SteerSessionRequest()],
        [opening, opening],
        [opening, move(2), move(2)],
        [opening, pb.SteerSessionRequest()],
    ):
        with pytest.raises(InvalidRequest):
            send(service, messages)
    assert send(service, []) == []
    assert send(service, [opening]) == []


def test_names_that_lead_nowhere_are_the_answer_to_each_move(service, task, at):
    async def run():
        async with (
            AsyncRemoteEngine(service.address) as engine,
            engine.steer_session(MODEL, "folder:demo/../..", png(1), task, user="ann") as session,
        ):
            await session.move(at(0.0))
            return (await anext(aiter(session))).outcome

    assert isinstance(asyncio.run(run()), UnknownSae)


def test_an_open_session_does_not_hold_up_a_stop(at, task):
    async def run(running):
        async with (
            AsyncRemoteEngine(running.address) as engine,
            engine.steer_session(MODEL, SAE, png(1), task, user="ann") as session,
        ):
            await session.move(at(0.0))
            stream = aiter(session)
            assert isinstance((await anext(stream)).outcome, Answered)
            running.begin_stop()
            with pytest.raises(ServiceUnavailable):
                await anext(stream)

    with Running(drain_s=30) as running:
        began = time.monotonic()
        asyncio.run(run(running))
        running.stop()
        assert time.monotonic() - began < 10


def test_a_session_in_which_nothing_happens_ends(opening):
    with Running(max_call_s=0.2) as running, running.channel() as channel:
        hold = threading.Event()

        def messages():
            yield opening
            hold.wait(10)

        began = time.monotonic()
        assert list(InferenceStub(channel).SteerSession(messages(), timeout=20)) == []
        assert time.monotonic() - began < 8
        hold.set()


@pytest.mark.parametrize("opened", [True, False])
def test_a_caller_who_says_nothing_takes_no_place_for_ever(opening, opened):
    with Running(max_call_s=0.2, max_concurrent_rpcs=1) as running, running.channel() as channel:
        hold = threading.Event()

        def messages():
            if opened:
                yield opening
            hold.wait(10)

        began = time.monotonic()
        try:
            assert list(InferenceStub(channel).SteerSession(messages(), timeout=8)) == []
            assert time.monotonic() - began < 5
            assert running.server.workers.n_calls == 0
        finally:
            hold.set()


def test_a_hand_that_never_rests_does_not_hold_up_a_stop(at, task):
    made = []

    def make(settings, batcher):
        made.append(Slow(settings, batcher))
        return made[0]

    async def run(running):
        async with (
            AsyncRemoteEngine(running.address) as engine,
            engine.steer_session(MODEL, SAE, png(1), task, user="ann") as session,
        ):
            first = await session.move(at(0.0))
            await asyncio.to_thread(made[0].entered.acquire)
            await session.move(at(0.5))
            running.begin_stop()
            while not running.server.workers.stopping.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # the second move has arrived
            made[0].gate.release()
            stream = aiter(session)
            assert (await anext(stream)).sequence == first
            with pytest.raises(ServiceUnavailable):
                await anext(stream)

    with Running(make, drain_s=5) as running:
        asyncio.run(run(running))
    assert made[0].n_steers == 1


def test_a_caller_who_reads_no_answers_takes_no_place_for_ever(opening, at):
    """More answers than the windows of a connection hold: a write waits until somebody reads."""
    small = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    with (
        Running(max_call_s=0.5, max_concurrent_rpcs=1) as running,
        grpc.insecure_channel(running.address, small) as channel,
    ):
        hold = threading.Event()

        def messages():
            yield opening
            sequence = 0
            while not hold.wait(0.002):
                sequence += 1
                yield pb.SteerSessionRequest(move=to_message(requests.SessionMove(sequence, at(0.0))))

        call = InferenceStub(channel).SteerSession(messages(), timeout=30)
        try:
            until = time.monotonic() + 20
            while running.server.workers.n_calls == 0 and time.monotonic() < until:
                time.sleep(0.01)
            while running.server.workers.n_calls and time.monotonic() < until:
                time.sleep(0.05)
            assert running.server.workers.n_calls == 0
        finally:
            hold.set()
            call.cancel()
