import json

import pytest

from fulcrum.client.problems import BY_REASON, error_of, error_of_problem
from fulcrum.client.steps import Response
from fulcrum.domain import errors
from fulcrum.gateway.errors import problem_response


def all_kinds(root=errors.FulcrumError):
    yield root
    for kind in root.__subclasses__():
        yield from all_kinds(kind)


def as_seen(response):
    return Response(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.body)


@pytest.mark.parametrize("kind", sorted(set(all_kinds()), key=lambda k: k.__name__))
def test_every_error_of_the_domain_arrives_as_what_it_was_raised_as(kind):
    raised = (
        kind("what was wrong") if not issubclass(kind, errors.Unavailable) else kind("what was wrong", 3.0)
    )
    error = error_of(as_seen(problem_response(raised, "req_7")))
    assert type(error) is kind
    assert str(error) == "what was wrong"
    assert error.retry_after_s == raised.retry_after_s
    assert error.__notes__ == ["request req_7"]


def test_the_table_knows_every_reason():
    assert set(BY_REASON.values()) == set(all_kinds())


def test_the_fields_that_were_wrong_stand_under_the_error():
    fields = [{"field": "body.task.names", "message": "Field required"}]
    response = problem_response(errors.InvalidRequest("2 problems"), "req_1", fields=fields)
    assert "body.task.names: Field required" in error_of(as_seen(response)).__notes__


@pytest.mark.parametrize(
    ("status", "kind"),
    [(409, errors.Conflict), (404, errors.NotFound), (418, errors.InvalidRequest), (500, errors.InternalError),
     (503, errors.ServiceUnavailable), (507, errors.InternalError)],
)  # fmt: skip
def test_a_reason_of_a_newer_gateway_becomes_the_family_of_its_status(status, kind):
    body = json.dumps({"reason": "NEWER", "status": status, "detail": "why"}).encode()
    error = error_of(Response(status, {"content-type": "application/problem+json"}, body))
    assert type(error) is kind
    assert str(error) == "why"


@pytest.mark.parametrize(
    "response",
    [
        Response(502, {"content-type": "text/html"}, b"<h1>Bad gateway</h1>"),
        Response(502, {"content-type": "application/json"}, b"{broken"),
        Response(502, {}, b""),
    ],
)
def test_a_proxy_that_answers_for_the_gateway_is_named_as_such(response):
    error = error_of(response)
    assert type(error) is errors.ServiceUnavailable
    assert "HTTP 502" in str(error)
    assert "proxy" in str(error)


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(value):
    assert error_of(Response(503, {"retry-after": value})).retry_after_s is None


def test_an_error_event_of_a_stream_is_the_same_error():
    error = error_of_problem({"reason": "CANCELLED", "status": 499, "detail": "gone", "request_id": "r"})
    assert type(error) is errors.Cancelled
