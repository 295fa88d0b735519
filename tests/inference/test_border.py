"""What every call passes on its way in and out."""

import io
import json
import logging
import threading
import time
import urllib.request

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.inference.running import MODEL, Running, png

from fulcrum import telemetry
from fulcrum.domain.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    ServiceUnavailable,
    Unauthenticated,
)
from fulcrum.inference.server import engine_of
from fulcrum.rpc.errors import from_rpc_error
from fulcrum.rpc.v1 import inference_pb2 as pb
from fulcrum.rpc.v1.inference_pb2_grpc import InferenceStub


class Waiting:
    """An engine that stops in `load_model` until it is let go; `encode_texts` falls over."""

    def __init__(self, settings, batcher):
        self._engine = engine_of(settings, batcher)
        self.entered, self.let_go = threading.Semaphore(0), threading.Event()

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def load_model(self, ref):
        self.entered.release()
        assert self.let_go.wait(20)
        return self._engine.load_model(ref)

    def encode_texts(self, model, texts):
        raise KeyError("/secret/path of ours")


@pytest.fixture
def waiting():
    """A service with two places whose engine waits."""
    made = []

    def make(settings, batcher):
        made.append(Waiting(settings, batcher))
        return made[0]

    with Running(make, max_concurrent_rpcs=2, drain_s=5) as running:
        running.engine = made[0]
        yield running
        made[0].let_go.set()


@pytest.fixture
def log_lines():
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    telemetry.configure_logging("inference", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines(keepends=True) if "\n" in line]
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def calls_in(log_lines, n=1):
    """The lines of at least `n` answered calls: they are written when the answers have left."""
    deadline = time.monotonic() + 10
    while True:
        lines = [line for line in log_lines() if line["event"] == "call"]
        if len(lines) >= n or time.monotonic() > deadline:
            return lines
        time.sleep(0.01)


def in_thread(call):
    """Runs `call` beside the test; `join` gives what it returned or raised."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join(20)
        return outcome[0]

    return join


def test_without_the_internal_token_nothing_is_answered_but_health(task):
    with Running(token="sesame") as running:
        for token in (None, "wrong", "sesam", "sesame "):
            with running.client(token=token) as client, pytest.raises(Unauthenticated):
                client.predict(MODEL, [png()], task)
        with running.client(token=None) as client:
            deadline = time.monotonic() + 10
            while not client.health() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert client.health()
        with running.client(token="sesame") as client:
            assert client.predict(MODEL, [png()], task)


def test_a_stranger_is_refused_before_the_request_was_read():
    with Running(token="sesame") as running, running.channel() as channel:
        call = channel.stream_unary("/fulcrum.rpc.v1.Inference/Predict")

        def half_a_request():
            yield b"x" * 1000
            time.sleep(20)  # never finished: whoever reads it all has to wait

        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            call(half_a_request(), timeout=15)
        assert isinstance(from_rpc_error(raised.value), Unauthenticated)
        assert time.monotonic() - began < 10


def test_an_error_is_a_status_with_reason_domain_and_code(service):
    with service.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        InferenceStub(channel).EncodeTexts(pb.EncodeTextsRequest())
    details = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_REQUEST", "fulcrum")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "model" in raised.value.details()


def test_a_fault_of_ours_is_told_without_its_insides_and_logged_with_them(waiting, log_lines):
    def carried():
        return {"x-fulcrum-request-id": "req_of_the_test"}

    with waiting.client(carried=carried) as client, pytest.raises(InternalError) as raised:
        client.encode_texts(MODEL, ["a cup"])
    assert "req_of_the_test" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "KeyError" not in str(raised.value)
    [line] = [line for line in log_lines() if line["event"] == "call failed"]
    assert line["request_id"] == "req_of_the_test"
    assert "KeyError" in line["exception"]


def test_a_panic_in_a_library_is_a_fault_of_ours_too(waiting, log_lines):
    class Panic(BaseException):
        """As libraries in Rust raise it."""

    def panics(model, texts):
        raise Panic("at the disco")

    waiting.engine.encode_texts = panics
    with waiting.client() as client, pytest.raises(InternalError, match="fault of the service"):
        client.encode_texts(MODEL, ["a cup"])
    assert [line["reason"] for line in calls_in(log_lines)] == [InternalError.reason]


def test_every_call_is_logged_with_user_reason_and_request_id(service, log_lines, task):
    with service.client(user="Zoë", carried=lambda: {"x-fulcrum-request-id": "req_1"}) as client:
        client.predict(MODEL, [png()], task)
    lines = calls_in(log_lines)
    assert [(line["method"], line["user"], line["reason"]) for line in lines][-1:] == [
        ("Predict", "Zoë", "OK")
    ]
    assert lines[-1]["request_id"] == "req_1"


def test_a_call_belongs_to_its_callers_trace(service, log_lines):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with service.client(carried=lambda: {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as client:
        client.list_models()
    [line] = calls_in(log_lines)
    assert line["trace_id"] == trace


def test_when_all_places_are_taken_the_next_is_told_to_retry(waiting):
    with waiting.client() as one, waiting.client() as two:
        joins = [in_thread(lambda c=c: c.load_model(MODEL)) for c in (one, two)]
        for _ in joins:
            assert waiting.engine.entered.acquire(timeout=10)
        with waiting.client() as third, pytest.raises(Overloaded, match="2 are allowed") as raised:
            third.list_models()
        assert raised.value.retry_after_s > 0
        waiting.engine.let_go.set()
        assert [join().ref for join in joins] == [MODEL, MODEL]
        with waiting.client() as third:
            assert third.list_models()


def test_a_call_beyond_our_own_time_limit_ends():
    made = []

    def make(settings, batcher):
        made.append(Waiting(settings, batcher))
        return made[0]

    with Running(make, max_call_s=0.3) as running, running.client(load_timeout_s=None) as client:
        with pytest.raises(DeadlineExceeded):
            client.load_model(MODEL)
        made[0].let_go.set()


def test_a_request_beyond_the_message_limit_is_refused(task):
    with Running(max_message_bytes=1 << 20) as running, running.client() as client:
        with pytest.raises(PayloadTooLarge, match="larger than max"):
            client.predict(MODEL, [b"x" * (2 << 20)], task)
        assert client.predict(MODEL, [png()], task)


def test_an_answer_beyond_the_message_limit_is_refused_with_a_reason():
    with Running(max_message_bytes=4096) as running, running.client() as client:
        texts = [f"a {n}" for n in range(64)]
        with pytest.raises(PayloadTooLarge, match=r"would have \d+ bytes, 4096 are allowed"):
            client.encode_texts(MODEL, texts)
        assert client.encode_texts(MODEL, texts[:2]).shape[0] == 2


def test_draining_finishes_what_runs_and_refuses_what_comes(waiting):
    with waiting.client() as client, waiting.client() as late:
        late.list_models()  # connected
        join = in_thread(lambda: client.load_model(MODEL))
        assert waiting.engine.entered.acquire(timeout=10)
        waiting.begin_stop()
        deadline = time.monotonic() + 10
        while late.health() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not late.health()
        with pytest.raises(ServiceUnavailable, match="stopping"):
            late.list_models()
        waiting.engine.let_go.set()
        assert join().ref == MODEL
        waiting.stop()


def test_what_does_not_finish_in_the_drain_is_told_so():
    made = []

    def make(settings, batcher):
        made.append(Waiting(settings, batcher))
        return made[0]

    with Running(make, drain_s=0.2) as running, running.client() as client:
        join = in_thread(lambda: client.load_model(MODEL))
        assert made[0].entered.acquire(timeout=10)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 10
        outcome = join()
        assert isinstance(outcome, ServiceUnavailable)
        assert outcome.retry_after_s == 1.0
        made[0].let_go.set()


def test_figures_are_served_for_prometheus(task):
    with Running(metrics_port=0) as running, running.client() as client:
        client.predict(MODEL, [png()], task)
        with pytest.raises(InvalidRequest):
            running.send(b"\xff")
        port = running.server.metrics_port
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert 'fulcrum_inference_calls_total{method="Predict",reason="OK"} 1.0' in text
    assert 'reason="INVALID_REQUEST"' in text
    for name in (
        "queue_rows",
        "prefix_hits_total",
        "batches_total",
        "models_loaded 1.0",
        "call_seconds_bucket",
    ):
        assert f"fulcrum_inference_{name}" in text
