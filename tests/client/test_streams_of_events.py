import json

import pytest
from tests.client.scripted import FixedConnection, Played, problem

from fulcrum.client.retries import ConnectionLost, Retries
from fulcrum.client.steps import Response
from fulcrum.client.wire import Wire
from fulcrum.domain import errors

OPEN = Response(200, {"content-type": "text/event-stream; charset=utf-8"})


def event(name, content):
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()


def played(*answers, n=4):
    wire = Wire(FixedConnection(), Retries(n=n))
    flow = wire.events("/v1/images/img_1:sweep", {"gains": [0]}, lambda name, content: (name, content))
    return Played(flow, list(answers))


def test_items_come_out_as_they_arrive_and_done_is_the_whole():
    done = played(OPEN, event("points", 1), event("points", 2) + event("done", {"all": 3}))
    assert done.items == [("points", 1), ("points", 2)]
    assert done.value == {"all": 3}
    assert done.closed


def test_a_failure_in_the_middle_is_the_error_that_the_service_raised():
    failed = event("error", {"reason": "OUT_OF_MEMORY", "status": 503, "detail": "no", "request_id": "req_1"})
    done = played(OPEN, event("points", 1), failed)
    assert done.items == [("points", 1)]
    assert isinstance(done.error, errors.OutOfMemory)
    assert done.closed


@pytest.mark.parametrize("end", [None, ConnectionLost("reset", sent=True)])
def test_a_stream_that_breaks_off_is_an_error_and_never_half_an_answer(end):
    done = played(OPEN, event("points", 1), end)
    assert isinstance(done.error, errors.ServiceUnavailable)
    assert "/v1/images/img_1:sweep" in str(done.error)


def test_a_stream_is_asked_for_again_only_before_it_began():
    done = played(problem("OVERLOADED", 503), ConnectionLost("reset", sent=True), OPEN, event("done", 1))
    assert done.value == 1
    assert len(done.requests) == 3
    broken = played(OPEN, event("points", 1), ConnectionLost("reset", sent=True))
    assert len(broken.requests) == 1


def test_a_question_that_is_refused_is_the_services_error():
    assert isinstance(played(problem("LATENT_OUT_OF_RANGE", 422)).error, errors.LatentOutOfRange)


def test_an_answer_that_is_no_stream_is_named():
    done = played(Response(200, {"content-type": "application/json"}))
    assert isinstance(done.error, errors.InternalError)
    assert "application/json" in str(done.error)


def test_an_event_that_is_no_json_is_named():
    done = played(OPEN, b"event: points\ndata: {\n\n")
    assert isinstance(done.error, errors.InternalError)
    assert "'points'" in str(done.error)
