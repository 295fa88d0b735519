import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.samples import IMAGE
from tests.client.scripted import FixedConnection, Played, ok, problem

from fulcrum.client.connection import Address
from fulcrum.client.retries import ConnectionLost, Retries
from fulcrum.client.steps import Request, Response
from fulcrum.client.wire import Wire
from fulcrum.domain import errors
from fulcrum.domain.records import ImageRecord

NEVER_SENT, LOST = ConnectionLost("refused", sent=False), ConnectionLost("reset by peer", sent=True)
BUSY = problem("OVERLOADED", 503, **{"retry-after": "2"})
DONE = Response(204, {})


def played(method, answers, n=4, headers=None, connection=None):
    wire = Wire(connection or FixedConnection(), Retries(n=n))
    return Played(wire.send(Request(method, "/v1/images", headers=headers or {})), answers)


def test_a_busy_service_is_asked_again_after_the_wait_that_it_names():
    done = played("GET", [BUSY, BUSY, DONE])
    assert done.value == DONE
    assert len(done.requests) == 3
    assert all(wait >= 2 for wait in done.waits)


def test_waits_double_and_stay_below_their_limit_with_a_random_half():
    retries = Retries(n=50, first_wait_s=0.25, longest_wait_s=4.0)
    for n_done in range(1, 20):
        for _ in range(20):
            wait = retries.wait_s(errors.Overloaded("busy"), n_done, True)
            full = min(0.25 * 2 ** (n_done - 1), 4.0)
            assert full / 2 <= wait <= full


def test_after_the_last_attempt_the_error_is_the_services_own():
    done = played("GET", [BUSY] * 3, n=2)
    assert isinstance(done.error, errors.Overloaded)
    assert done.error.retry_after_s == 2


def test_a_wait_that_nobody_would_sit_through_is_an_error_at_once():
    done = played("GET", [problem("RATE_LIMITED", 429, **{"retry-after": "3600"})])
    assert isinstance(done.error, errors.RateLimited)
    assert done.waits == []


@pytest.mark.parametrize(
    "answer",
    [
        problem("INVALID_EDIT", 422), problem("UNKNOWN_IMAGE", 404), problem("FORBIDDEN", 403),
        problem("INTERNAL_ERROR", 500), problem("STALE_VERSION", 412), problem("DEADLINE_EXCEEDED", 504),
        problem("OUT_OF_MEMORY", 503), problem("IDEMPOTENCY_CONFLICT", 409), errors.DeadlineExceeded("60 s"),
    ],
)  # fmt: skip
def test_what_would_fail_again_is_not_sent_again(answer):
    done = played("GET", [answer])
    assert isinstance(done.error, errors.FulcrumError)
    assert len(done.requests) == 1


def test_all_attempts_of_a_post_carry_one_key_and_two_posts_carry_two():
    def keys(done):
        return {r.headers["Idempotency-Key"] for r in done.requests}

    first, second = played("POST", [LOST, BUSY, DONE]), played("POST", [DONE])
    assert len(first.requests) == 3
    assert len(keys(first)) == len(keys(second)) == 1
    assert keys(first) != keys(second)


def test_a_post_whose_first_attempt_still_runs_waits_for_its_answer():
    done = played("POST", [LOST, problem("IDEMPOTENCY_CONFLICT", 409), DONE])
    assert done.value == DONE


def test_a_change_of_one_version_is_not_repeated_when_it_may_have_arrived():
    done = played("PATCH", [LOST], headers={"If-Match": '"3"'})
    assert isinstance(done.error, errors.ServiceUnavailable)
    assert "http://gateway.test does not answer: reset by peer" in str(done.error)


@pytest.mark.parametrize(
    ("method", "answers", "headers"),
    [
        ("PATCH", [NEVER_SENT, DONE], {"If-Match": '"3"'}),
        ("PATCH", [BUSY, DONE], {"If-Match": '"3"'}),
        ("PATCH", [LOST, DONE], {"If-Match": "*"}),
        ("PUT", [LOST, DONE], {}),
        ("GET", [LOST, DONE], {}),
    ],
)
def test_what_did_not_arrive_or_does_no_more_when_repeated_is_sent_again(method, answers, headers):
    assert played(method, answers, headers=headers).value == DONE


def test_a_delete_whose_answer_was_lost_counts_as_done_when_the_thing_is_gone():
    assert played("DELETE", [LOST, problem("UNKNOWN_IMAGE", 404)]).error is None


def test_a_delete_of_what_never_was_is_an_error():
    assert isinstance(played("DELETE", [problem("UNKNOWN_IMAGE", 404)]).error, errors.UnknownImage)
    assert isinstance(
        played("DELETE", [NEVER_SENT, problem("UNKNOWN_IMAGE", 404)]).error, errors.UnknownImage
    )


def test_no_retries_means_one_attempt():
    assert len(played("GET", [LOST], n=0).requests) == 1


@pytest.mark.parametrize("answer", [problem("UNAUTHENTICATED", 401), NEVER_SENT])
def test_a_platform_that_was_started_anew_is_found_under_its_new_token(answer):
    connection = FixedConnection(Address("http://gateway.test:8081", "fct_new"))
    done = played("GET", [answer, DONE], connection=connection, n=0)
    assert done.value == DONE
    assert done.waits == []


def test_a_token_that_stays_refused_is_an_error_and_no_endless_loop():
    refused = problem("UNAUTHENTICATED", 401)
    connection = FixedConnection(*[Address("http://gateway.test", f"fct_{n}") for n in range(50)])
    done = played("GET", [refused] * 5, connection=connection)
    assert isinstance(done.error, errors.Unauthenticated)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([BUSY, NEVER_SENT, problem("SERVICE_UNAVAILABLE", 503)]), max_size=8),
    st.integers(0, 6),
)
def test_there_are_never_more_attempts_than_allowed(failures, n):
    wire = Wire(FixedConnection(), Retries(n=n))
    answers = failures[: n + 1] if len(failures) > n else [*failures, DONE]
    done = Played(wire.send(Request("GET", "/v1/me")), answers)
    assert len(done.requests) == min(len(failures), n) + 1
    assert (done.error is None) == (len(failures) <= n)


def test_an_answer_that_is_no_json_is_an_error_that_says_so():
    wire = Wire(FixedConnection(), Retries(n=0))
    page = Response(200, {"content-type": "text/html"}, b"<html>")
    done = Played(wire.ask(ImageRecord, "GET", "/v1/images/img_1"), [page])
    assert isinstance(done.error, errors.InternalError)
    assert "text/html" in str(done.error)


def test_an_answer_is_read_as_what_was_asked_for():
    wire = Wire(FixedConnection(), Retries(n=0))
    assert Played(wire.ask(ImageRecord, "GET", "/v1/images/img_1"), [ok(IMAGE)]).value == IMAGE
