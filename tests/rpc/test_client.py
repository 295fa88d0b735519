import inspect
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
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
    folder,
    refuse,
    replicas,
    serving,
)
from tests.rpc.values import same

from fulcrum.domain.engine import InferenceEngine
from fulcrum.domain.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidEdit,
    InvalidRequest,
    InvalidSettings,
    OutOfMemory,
    Overloaded,
    PayloadTooLarge,
    ServiceUnavailable,
)
from fulcrum.domain.results import DoseResponse
from fulcrum.rpc.client import RemoteEngine
from fulcrum.rpc.convert import to_answer, to_message
from fulcrum.rpc.images import ImageHash, image_sha256
from fulcrum.rpc.pieces import MAX_BYTES, pieces_of
from fulcrum.rpc.replicas import ranked
from fulcrum.rpc.v1 import inference_pb2 as pb


def steer(request, context):
    return to_answer(pb.SteerResponse, EFFECT, PROVENANCE)


def predict(request, context):
    # Each image's number, so that the order of the answers shows.
    values = tuple(
        type(PREDICTION)(TASK.names, np.array([float(image.data), 0.0]), PREDICTION.probs)
        for image in request.images
    )
    return to_answer(pb.PredictResponse, values, PROVENANCE)


def ask(engine, image=b"image"):
    return engine.steer(MODEL, SAE, image, CORRECTION, TASK)


def test_the_remote_engine_has_the_protocols_methods_with_the_same_arguments():
    for name, method in vars(InferenceEngine).items():
        if name[0] == "_":
            continue
        mine = inspect.signature(getattr(RemoteEngine, name)).parameters
        theirs = inspect.signature(method).parameters
        assert [(p.name, p.default) for p in mine.values()] == [
            (p.name, p.default) for p in theirs.values()
        ], name


def test_an_answer_arrives_as_it_was_given():
    with replicas(1, Steer=steer) as ([address], [service]), RemoteEngine(address) as engine:
        assert same(ask(engine), EFFECT)
    assert service.calls[0][1].correction == to_message(CORRECTION)


def test_user_token_and_request_id_travel_beside_the_request():
    carried = {"x-fulcrum-request-id": "req_1 ✓", "traceparent": "00-1-2-01", "tracestate": ""}
    with (
        replicas(1, Steer=steer) as ([address], [service]),
        RemoteEngine(address, token="secret", user="Zoë ✓", carried=lambda: carried) as engine,
    ):
        ask(engine)
    metadata = service.calls[0][2]
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["x-fulcrum-user"] == "Zo%C3%AB%20%E2%9C%93"
    assert metadata["x-fulcrum-request-id"] == "req_1%20%E2%9C%93"
    assert "tracestate" not in metadata
    assert metadata["traceparent"] == "00-1-2-01"


def test_deterministic_is_asked_for_with_every_request():
    with (
        replicas(1, Steer=steer) as ([address], [service]),
        RemoteEngine(address, deterministic=True) as engine,
    ):
        ask(engine)
    assert service.calls[0][1].deterministic


def test_a_refusal_arrives_as_the_domain_error_that_it_was():
    refusal = refuse(InvalidEdit("gain of latent 3 is nan"))
    with (
        replicas(1, Steer=refusal) as ([address], _),
        RemoteEngine(address) as engine,
        pytest.raises(InvalidEdit, match="gain of latent 3 is nan"),
    ):
        ask(engine)


def test_when_to_come_back_arrives_too():
    with (
        replicas(1, Steer=refuse(OutOfMemory("8 GiB", retry_after_s=3))) as ([address], _),
        RemoteEngine(address) as engine,
        pytest.raises(OutOfMemory) as caught,
    ):
        ask(engine)
    assert caught.value.retry_after_s == 3


def test_a_service_that_is_not_there_is_unavailable_at_once():
    with folder() as where, RemoteEngine(f"unix:{where}/nobody") as engine:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="cannot be reached") as caught:
            ask(engine)
        assert time.monotonic() - began < 5
        assert caught.value.retry_after_s > 0
        assert not engine.health()


def test_a_service_that_comes_back_is_found_within_seconds():
    with folder() as where, RemoteEngine(f"unix:{where}/s") as engine:
        for _ in range(2):
            with serving(f"unix:{where}/s", Steer=steer):
                deadline = time.monotonic() + 10
                while True:
                    try:
                        ask(engine)
                        break
                    except ServiceUnavailable:
                        assert time.monotonic() < deadline
                        time.sleep(0.05)


def test_the_same_image_goes_to_the_same_replica_by_bytes_or_by_hash():
    with replicas(3, Steer=steer) as (addresses, services), RemoteEngine(",".join(addresses)) as engine:
        for number in range(40):
            image = str(number).encode()
            for form in (image, image, ImageHash(image_sha256(image))):
                ask(engine, form)
    counts = [len(s.calls) for s in services]
    assert sum(counts) == 120
    assert all(c % 3 == 0 and c > 0 for c in counts)


def test_a_replica_that_goes_moves_only_its_own_images():
    addresses = [f"unix:/{i}" for i in range(5)]
    keys = [str(k) for k in range(400)]
    before = {k: ranked(addresses, k)[0] for k in keys}
    after = {k: ranked(addresses[:-1], k)[0] for k in keys}
    assert all(after[k] == before[k] for k in keys if before[k] != addresses[-1])
    assert min(Counter(before.values()).values()) > 40  # 80 expected


@pytest.mark.parametrize(
    "refusal", [Overloaded("full", 1.0), ServiceUnavailable("draining")], ids=["full", "draining"]
)
def test_another_replica_is_asked_where_one_is_busy_or_stops(refusal):
    with (
        replicas(3, Steer=refuse(refusal)) as (addresses, services),
        RemoteEngine(",".join(addresses)) as engine,
    ):
        last = ranked(addresses, image_sha256(b"image"))[-1]
        services[addresses.index(last)].behaviours["Steer"] = steer
        assert same(ask(engine), EFFECT)
        assert [len(s.calls) for s in services] == [1, 1, 1]


def test_another_replica_is_asked_where_one_is_dead():
    with (
        replicas(1, Steer=steer) as ([address], _),
        RemoteEngine(f"unix:/nobody,{address},unix:/nothing") as engine,
    ):
        for number in range(6):
            assert same(ask(engine, str(number).encode()), EFFECT)


def test_when_all_are_busy_the_caller_learns_when_to_come_back():
    with (
        replicas(2, Steer=refuse(Overloaded("full", 1.5))) as (addresses, services),
        RemoteEngine(",".join([*addresses, "unix:/nobody"])) as engine,
        pytest.raises(Overloaded) as caught,
    ):
        ask(engine)
    assert caught.value.retry_after_s == 1.5
    assert [len(s.calls) for s in services] == [1, 1]


def test_what_is_the_callers_fault_is_asked_once():
    with (
        replicas(3, Steer=refuse(InvalidEdit("no"))) as (addresses, services),
        RemoteEngine(",".join(addresses)) as engine,
        pytest.raises(InvalidEdit),
    ):
        ask(engine)
    assert sum(len(s.calls) for s in services) == 1


DYING = """
import os, sys
sys.path.insert(0, {root!r})
from tests.rpc.scripted import serving
with serving({address!r}, Steer=lambda request, context: os._exit(9)):
    print("up", flush=True)
    sys.stdin.read()
"""


def test_a_request_that_kills_its_process_does_not_visit_every_replica(pytestconfig):
    with folder() as where:
        addresses = [f"unix:{where}/{i}" for i in range(3)]
        dying = [
            subprocess.Popen(
                [sys.executable, "-c", DYING.format(root=str(pytestconfig.rootpath), address=a)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"PYTHONPATH": str(pytestconfig.rootpath / "services")},
            )
            for a in addresses
        ]
        try:
            assert [p.stdout.readline() for p in dying] == [b"up\n"] * 3
            with RemoteEngine(",".join(addresses)) as engine, pytest.raises(ServiceUnavailable):
                ask(engine)
            time.sleep(0.2)
            assert sorted(p.poll() is None for p in dying) == [False, False, True]
        finally:
            for process in dying:
                process.stdin.close()
                process.stdout.close()
                process.wait(10)


def test_a_call_ends_at_its_deadline_and_the_service_learns_it():
    release = threading.Event()

    def slow(request, context):
        release.wait(10)
        return steer(request, context)

    with replicas(1, Steer=slow) as ([address], [service]), RemoteEngine(address, timeout_s=0.3) as engine:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer in time"):
            ask(engine)
        assert time.monotonic() - began < 3
        assert service.cancelled.wait(5)
        release.set()


def test_the_deadline_is_one_over_all_replicas():
    def slow_refusal(request, context):
        time.sleep(0.3)
        refuse(Overloaded("full"))(request, context)

    with replicas(5, Steer=slow_refusal) as (addresses, services):
        with RemoteEngine(",".join(addresses), timeout_s=0.5) as engine, pytest.raises(DeadlineExceeded):
            ask(engine)
        assert sum(len(s.calls) for s in services) <= 3


def test_loading_may_take_longer_than_asking():
    def load(request, context):
        assert context.time_remaining() > 100
        refuse(InvalidSettings("seen"))(request, context)

    with (
        replicas(1, LoadModel=load) as ([address], _),
        RemoteEngine(address, timeout_s=1) as engine,
        pytest.raises(InvalidSettings, match="seen"),
    ):
        engine.load_model(MODEL)


def sweep_events(*, done=True):
    def behaviour(request, context):
        points = pb.SweepResponse()
        for field in ("gains", "logits", "target_values"):
            getattr(points.points, field).CopyFrom(getattr(to_message(CURVE), field))
        yield points
        if done:
            yield pb.SweepResponse(done=to_answer(pb.SweepDone, CURVE, PROVENANCE))

    return behaviour


def test_a_sweep_is_the_curve_at_the_end_of_its_stream():
    with replicas(1, Sweep=sweep_events()) as ([address], [service]), RemoteEngine(address) as engine:
        curve = engine.sweep(MODEL, SAE, b"image", [3], [0, 1.0], TASK)
        assert isinstance(curve, DoseResponse)
        assert same(curve, CURVE)
        assert list(service.calls[0][1].gains) == [0.0, 1.0]


def test_a_stream_that_ends_too_early_is_no_answer():
    with (
        replicas(1, Sweep=sweep_events(done=False), Suggest=lambda r, c: iter(())) as ([address], _),
        RemoteEngine(address) as engine,
    ):
        with pytest.raises(InternalError, match="ended Sweep without its last event"):
            engine.sweep(MODEL, SAE, b"image", [3], [0.0], TASK)
        with pytest.raises(InternalError, match="ended Suggest"):
            list(engine.suggest(MODEL, SAE, b"image", TASK, "dog"))


def suggestions(last):
    def behaviour(request, context):
        yield pb.SuggestResponse(suggestion=to_message(SUGGESTION))
        yield from last(request, context)

    return behaviour


def all_found(request, context):
    yield pb.SuggestResponse(done=to_answer(pb.SuggestDone, (SUGGESTION,), PROVENANCE))


def failing(request, context):
    refuse(Overloaded("full"))(request, context)
    yield


def waiting(request, context):
    while context.is_active():
        time.sleep(0.01)
    yield from ()


def test_suggestions_come_as_they_are_found():
    with replicas(1, Suggest=suggestions(all_found)) as ([address], _), RemoteEngine(address) as engine:
        assert list(engine.suggest(MODEL, SAE, b"image", TASK, "dog")) == [SUGGESTION]


def test_who_stops_listening_stops_the_search():
    with replicas(1, Suggest=suggestions(waiting)) as ([address], [service]), RemoteEngine(address) as engine:
        found = engine.suggest(MODEL, SAE, b"image", TASK, "dog")
        assert next(found) == SUGGESTION
        assert not service.cancelled.is_set()
        found.close()
        assert service.cancelled.wait(5)


def test_a_stream_that_fails_after_its_first_event_is_not_begun_again_elsewhere():
    with (
        replicas(2, Suggest=suggestions(failing)) as (addresses, services),
        RemoteEngine(",".join(addresses)) as engine,
    ):
        found = engine.suggest(MODEL, SAE, b"image", TASK, "dog")
        assert next(found) == SUGGESTION
        with pytest.raises(Overloaded):
            next(found)
    assert sum(len(s.calls) for s in services) == 1


def test_a_stream_that_is_refused_before_its_first_event_is_begun_elsewhere():
    with replicas(2, Suggest=failing) as (addresses, services), RemoteEngine(",".join(addresses)) as engine:
        services[addresses.index(ranked(addresses, image_sha256(b"image"))[1])].behaviours["Suggest"] = (
            suggestions(all_found)
        )
        assert list(engine.suggest(MODEL, SAE, b"image", TASK, "dog")) == [SUGGESTION]


def test_an_answer_that_cannot_be_read_is_not_the_callers_fault():
    answers = iter(
        [
            pb.SteerResponse(),
            to_answer(pb.SteerResponse, EFFECT),
            to_answer(pb.SteerResponse, EFFECT, PROVENANCE),
        ]
    )

    def malformed(request, context):
        answer = next(answers)
        answer.value.before.logits.data = b"odd"
        return answer

    with replicas(1, Steer=malformed) as ([address], _), RemoteEngine(address) as engine:
        for _ in range(3):
            with pytest.raises(InternalError, match="answer cannot be read"):
                ask(engine)


def test_a_request_that_cannot_be_sent_leaves_nothing_behind():
    with replicas(1, Steer=steer) as ([address], [service]), RemoteEngine(address) as engine:
        with pytest.raises(InvalidRequest):
            engine.steer(MODEL, SAE, b"image", CORRECTION, TASK, seed=2**80)
        with pytest.raises(PayloadTooLarge, match="larger"):
            ask(engine, bytes(65 * 1024 * 1024))
        assert same(ask(engine), EFFECT)
        assert len(service.calls) == 1


def test_many_images_are_asked_in_pieces_and_answered_in_order():
    with replicas(3, Predict=predict) as (addresses, services), RemoteEngine(",".join(addresses)) as engine:
        images = [str(n).encode() for n in range(150)]
        assert [p.logits[0] for p in engine.predict(MODEL, images, TASK)] == list(range(150))
    assert sorted(len(r.images) for s in services for _, r, _ in s.calls) == [22, 64, 64]


def test_pieces_are_bounded_in_bytes_and_keep_an_image_that_is_larger_alone():
    large = bytes(MAX_BYTES + 1)
    assert [len(p) for p in pieces_of([b"a", large, b"b", b"c"])] == [1, 1, 2]
    assert list(pieces_of([])) == [()]
    assert [len(p) for p in pieces_of([ImageHash("0" * 64)] * 65)] == [64, 1]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("SERVING", True), ("NOT_SERVING", False), ("UNKNOWN", False), ("SERVICE_UNKNOWN", False)],
)
def test_healthy_is_only_what_says_that_it_serves(status, expected):
    number = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
    with (
        folder() as where,
        serving(f"unix:{where}/s", health=number),
        RemoteEngine(f"unix:{where}/s") as engine,
    ):
        assert engine.health() is expected


def test_after_close_the_engine_says_so():
    with replicas(1, Steer=steer) as ([address], _):
        engine = RemoteEngine(address)
        ask(engine)
        engine.close()
        with pytest.raises(ServiceUnavailable, match="closed"):
            ask(engine)
        assert not engine.health()


def test_several_threads_share_one_engine():
    with replicas(2, Predict=predict) as (addresses, _), RemoteEngine(",".join(addresses)) as engine:
        wrong = []

        def work(number):
            for _ in range(20):
                image = str(number).encode()
                if engine.predict(MODEL, [image], TASK)[0].logits[0] != number:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
