import asyncio
import inspect
import threading
import time
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.rpc.scripted import (
    CORRECTION,
    CURVE,
    EFFECT,
    MODEL,
    PREDICTION,
    PROVENANCE,
    SAE,
    SUGGESTION,
    TASK,
    refuse,
    replicas,
)
from tests.rpc.test_client import all_found, failing, steer, suggestions, sweep_events, waiting
from tests.rpc.values import same

from fulcrum.domain.edits import Scale
from fulcrum.domain.engine import InferenceEngine
from fulcrum.domain.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidEdit,
    InvalidRequest,
    LatentOutOfRange,
    Overloaded,
    ServiceUnavailable,
)
from fulcrum.domain.models import ModelInfo
from fulcrum.domain.provenance import Answered
from fulcrum.rpc.answers import DosePoints
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.convert import to_answer, to_message
from fulcrum.rpc.errors import to_status
from fulcrum.rpc.images import ImageHash, image_sha256
from fulcrum.rpc.replicas import ranked
from fulcrum.rpc.v1 import inference_pb2 as pb


def asked(engine, image=b"image", **options):
    return engine.steer(MODEL, SAE, image, CORRECTION, TASK, **{"user": "usr_1", **options})


def run(n, check, behaviours, *, at_most=None, **options):
    """`check(engine, addresses, services)` in a loop of its own, over `n` replicas."""

    async def main(addresses, services):
        async with AsyncRemoteEngine(",".join(addresses), **options) as engine:
            return await asyncio.wait_for(check(engine, addresses, services), 20)

    with replicas(n, at_most=at_most, **behaviours) as (addresses, services):
        return asyncio.run(main(addresses, services))


def test_every_method_of_the_protocol_is_there_with_user_and_determinism():
    for name, method in vars(InferenceEngine).items():
        if name[0] == "_":
            continue
        mine = dict(inspect.signature(getattr(AsyncRemoteEngine, name)).parameters)
        assert mine.pop("user").kind is inspect.Parameter.KEYWORD_ONLY
        if not name.startswith("load"):
            assert mine.pop("deterministic").default is False
        theirs = inspect.signature(method).parameters
        assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in theirs.values()]


def test_an_answer_has_its_provenance_and_the_request_its_user():
    async def check(engine, addresses, services):
        answered = await asked(engine, user="Zoë", deterministic=True)
        assert same(answered, Answered(EFFECT, PROVENANCE))
        _, request, metadata = services[0].calls[0]
        assert request.deterministic
        assert metadata["x-fulcrum-user"] == "Zo%C3%AB"
        assert metadata["authorization"] == "Bearer secret"
        assert metadata["x-fulcrum-request-id"] == "req_7"

    run(1, check, {"Steer": steer}, token="secret", carried=lambda: {"x-fulcrum-request-id": "req_7"})


def test_many_images_are_one_question_with_one_provenance():
    def predict(request, context):
        return to_answer(pb.PredictResponse, (PREDICTION,) * len(request.images), PROVENANCE)

    async def check(engine, addresses, services):
        images = [ImageHash(f"{n:064x}") for n in range(300)]
        answered = await engine.predict(MODEL, images, TASK, user="usr_1")
        assert len(answered.value) == 300
        assert len(services[0].calls) == 1

    run(1, check, {"Predict": predict})


def test_the_same_image_goes_to_the_same_replica():
    async def check(engine, addresses, services):
        for number in range(40):
            image = str(number).encode()
            await asyncio.gather(asked(engine, image), asked(engine, ImageHash(image_sha256(image))))
        counts = [len(s.calls) for s in services]
        assert sum(counts) == 80
        assert all(c % 2 == 0 and c > 0 for c in counts)

    run(3, check, {"Steer": steer})


def test_another_replica_is_asked_where_one_is_busy():
    async def check(engine, addresses, services):
        last = ranked(addresses, image_sha256(b"image"))[-1]
        services[addresses.index(last)].behaviours["Steer"] = steer
        assert same((await asked(engine)).value, EFFECT)

    run(3, check, {"Steer": refuse(Overloaded("full", 2.0))})


def test_a_refusal_arrives_as_the_domain_error_that_it_was():
    async def check(engine, addresses, services):
        with pytest.raises(Overloaded, match="full") as caught:
            await asked(engine)
        assert caught.value.retry_after_s == 2.0
        services[0].behaviours["Steer"] = refuse(InvalidEdit("no"))
        with pytest.raises(InvalidEdit):
            await asked(engine)
        services[0].behaviours["Steer"] = refuse(Cancelled("drained"))
        with pytest.raises(Cancelled, match="drained"):
            await asked(engine)
        services[0].behaviours["Steer"] = lambda request, context: 1 / 0
        with pytest.raises(InternalError):
            await asked(engine)

    run(1, check, {"Steer": refuse(Overloaded("full", 2.0))})


def test_a_service_that_is_not_there_is_unavailable():
    async def check(engine, addresses, services):
        async with AsyncRemoteEngine("unix:/nobody,unix:/nothing") as lost:
            with pytest.raises(ServiceUnavailable, match="cannot be reached"):
                await asked(lost)
            assert not await lost.health()
            assert await lost.replicas() == {"unix:/nobody": False, "unix:/nothing": False}
        assert await engine.health()

    run(1, check, {})


def test_a_call_ends_at_its_deadline():
    async def check(engine, addresses, services):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await asked(engine)
        assert time.monotonic() - began < 3
        assert await asyncio.to_thread(services[0].cancelled.wait, 5)

    def slow(request, context):
        while context.is_active():
            time.sleep(0.01)
        return pb.SteerResponse()

    run(1, check, {"Steer": slow}, timeout_s=0.3)


def test_a_cancelled_task_cancels_its_call_on_the_service():
    arrived = threading.Event()

    def slow(request, context):
        arrived.set()
        while context.is_active():
            time.sleep(0.01)
        return pb.SteerResponse()

    async def check(engine, addresses, services):
        task = asyncio.create_task(asked(engine))
        assert await asyncio.to_thread(arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(services[0].cancelled.wait, 5)

    run(1, check, {"Steer": slow})


def test_a_sweep_gives_points_and_then_everything():
    async def check(engine, addresses, services):
        events = [e async for e in engine.sweep(MODEL, SAE, b"i", [3], [0.0, 1.0], TASK, user="usr_1")]
        assert same(events[0], DosePoints(CURVE.gains, CURVE.logits, CURVE.target_values))
        assert same(events[1], Answered(CURVE, PROVENANCE))
        services[0].behaviours["Sweep"] = sweep_events(done=False)
        with pytest.raises(InternalError, match="without its last event"):
            _ = [e async for e in engine.sweep(MODEL, SAE, b"i", [3], [0.0], TASK, user="usr_1")]
        with pytest.raises(InvalidRequest):
            _ = [e async for e in engine.sweep(MODEL, SAE, b"i", [3], [float("nan")], TASK, user="usr_1")]

    run(1, check, {"Sweep": sweep_events()})


def test_suggestions_come_as_they_are_found_and_all_of_them_last():
    async def check(engine, addresses, services):
        events = [e async for e in engine.suggest(MODEL, SAE, b"i", TASK, "dog", user="usr_1")]
        assert events == [SUGGESTION, Answered((SUGGESTION,), PROVENANCE)]

    run(1, check, {"Suggest": suggestions(all_found)})


def test_who_stops_listening_stops_the_search():
    async def check(engine, addresses, services):
        async with aclosing(engine.suggest(MODEL, SAE, b"i", TASK, "dog", user="usr_1")) as events:
            assert await anext(events) == SUGGESTION
            assert not services[0].cancelled.is_set()
        assert await asyncio.to_thread(services[0].cancelled.wait, 5)

    run(1, check, {"Suggest": suggestions(waiting)})


def test_a_task_that_is_cancelled_while_it_listens_stops_the_search():
    async def check(engine, addresses, services):
        first = asyncio.Event()

        async def listen():
            async with aclosing(engine.suggest(MODEL, SAE, b"i", TASK, "dog", user="usr_1")) as events:
                async for _ in events:
                    first.set()

        task = asyncio.create_task(listen())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(services[0].cancelled.wait, 5)

    run(1, check, {"Suggest": suggestions(waiting)})


def test_a_stream_that_fails_says_why():
    async def check(engine, addresses, services):
        events = engine.suggest(MODEL, SAE, b"i", TASK, "dog", user="usr_1")
        assert await anext(events) == SUGGESTION
        with pytest.raises(Overloaded):
            await anext(events)

    run(1, check, {"Suggest": suggestions(failing)})


def test_warming_reaches_every_replica_and_loading_one():
    info = ModelInfo(
        MODEL, "a", "b", 32, 6, 64, 32, 65, (8, 8), True, "tok", 100.0, None, 10**6, "cpu", "float32"
    )

    async def check(engine, addresses, services):
        assert (await engine.warm_model(MODEL, SAE, user="usr_1")).ref == MODEL
        assert [len(s.calls) for s in services] == [1, 1, 1]
        assert await engine.load_model(MODEL) == info
        assert sum(len(s.calls) for s in services) == 4
        assert await engine.list_models() == [info]

    run(
        3,
        check,
        {
            "WarmModel": lambda r, c: to_answer(pb.WarmModelResponse, info, PROVENANCE),
            "LoadModel": lambda r, c: to_answer(pb.LoadModelResponse, info),
            "ListModels": lambda r, c: to_answer(pb.ListModelsResponse, (info,)),
        },
    )


def test_after_close_the_engine_says_so():
    async def check(engine, addresses, services):
        await asked(engine)
        await engine.aclose()
        with pytest.raises(ServiceUnavailable, match="closed"):
            await asked(engine)
        assert not await engine.health()

    run(1, check, {"Steer": steer})


def session(requests, context):
    """Answers every second move; a move without edits is refused; a third answer ends the session."""
    opening = next(requests)
    assert opening.open.model == to_message(MODEL)
    for message in requests:
        move = message.move
        if len(move.correction.edits) > 1:
            refuse(ServiceUnavailable("draining", 1.0))(message, context)
        if not move.correction.edits:
            error = to_status(LatentOutOfRange("no such latent"))
            yield pb.SteerSessionResponse(sequence=move.sequence, error=error)
        elif move.sequence % 2:
            answer = to_answer(pb.SteerSessionAnswer, EFFECT, PROVENANCE)
            yield pb.SteerSessionResponse(sequence=move.sequence, answer=answer)


def moved(*latents):
    return replace(CORRECTION, edits=tuple(Scale(n, 0.5) for n in latents))


def test_a_session_answers_moves_and_refuses_single_ones():
    async def check(engine, addresses, services):
        async with engine.steer_session(MODEL, SAE, b"image", TASK, user="usr_1") as steering:
            assert [await steering.move(moved(n)) for n in (1, 2, 3)] == [1, 2, 3]
            await steering.move(CORRECTION)
            await steering.move(moved(5))
            await steering.done_moving()
            answers = [a async for a in steering]
        assert [a.sequence for a in answers] == [1, 3, 4, 5]
        assert same(answers[0].outcome, Answered(EFFECT, PROVENANCE))
        assert type(answers[2].outcome) is LatentOutOfRange
        assert str(answers[2].outcome) == "no such latent"

    run(1, check, {"SteerSession": session})


def test_what_ends_a_session_is_raised():
    async def check(engine, addresses, services):
        async with engine.steer_session(MODEL, SAE, b"image", TASK, user="usr_1") as steering:
            await steering.move(moved(1, 2))
            with pytest.raises(ServiceUnavailable, match="draining"):
                _ = [a async for a in steering]
            with pytest.raises(ServiceUnavailable, match="draining") as caught:
                await steering.move(moved(1))
            assert caught.value.retry_after_s == 1.0

    run(1, check, {"SteerSession": session})


def test_leaving_a_session_ends_it_on_the_service():
    async def check(engine, addresses, services):
        async with engine.steer_session(MODEL, SAE, b"image", TASK, user="usr_1") as steering:
            await steering.move(moved(1))
            async for answer in steering:
                assert answer.sequence == 1
                break
        assert await asyncio.to_thread(services[0].cancelled.wait, 5)

    run(1, check, {"SteerSession": session})


def test_a_session_goes_to_a_replica_that_is_there():
    async def check(engine, addresses, services):
        async with AsyncRemoteEngine(f"unix:/nobody,{addresses[0]},unix:/nothing") as several:
            for number in range(6):
                image = str(number).encode()
                async with several.steer_session(MODEL, SAE, image, TASK, user="usr_1") as steering:
                    await steering.move(moved(1))
                    assert (await anext(aiter(steering))).sequence == 1

    run(1, check, {"SteerSession": session})


def test_grpcs_own_bound_on_calls_reads_as_overloaded():
    async def check(engine, addresses, services):
        first = asyncio.create_task(asked(engine))
        while not services[0].calls:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await asked(engine)
        release.set()
        assert same((await first).value, EFFECT)

    def slow(request, context):
        release.wait(10)
        return steer(request, context)

    release = threading.Event()
    run(1, check, {"Steer": slow}, at_most=1)


def test_a_session_with_nobody_says_so():
    async def check(engine, addresses, services):
        async with AsyncRemoteEngine("unix:/nobody") as lost:
            with pytest.raises(ServiceUnavailable):
                await lost.steer_session(MODEL, SAE, b"image", TASK, user="usr_1").__aenter__()

    run(1, check, {})
