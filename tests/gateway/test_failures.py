"""Every failure leaves in the one shape, and no traceback ever does."""

import contextlib
import json
import socket
from urllib.parse import urlsplit

import pytest
import sqlalchemy

from fulcrum.domain import errors
from fulcrum.gateway.errors import MEDIA_TYPE, STATUS, TITLE, as_domain_error, problem_response, status_of
from fulcrum.gateway.middleware import body_limit


def all_errors():
    found, waiting = [], [errors.FulcrumError]
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting.extend(error.__subclasses__())
    return found


def assert_problem(answer, status, reason):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    content = answer.json()
    assert {"type", "title", "status", "detail", "reason", "request_id"} <= set(content)
    assert content["status"] == status
    assert content["reason"] == reason, content
    assert content["type"] == f"urn:fulcrum:error:{reason}"
    assert content["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "line " not in content["detail"].partition("(")[0]
    return content


@pytest.mark.parametrize("kind", all_errors(), ids=lambda k: k.__name__)
def test_every_domain_error_has_a_status_with_a_title_and_keeps_its_reason(kind):
    error = kind("said")
    answer = problem_response(error, "req_1")
    content = json.loads(answer.body)
    assert content["reason"] == kind.reason
    assert content["detail"] == "said"
    assert content["title"] == TITLE[status_of(error)]
    assert 400 <= answer.status_code <= 599


def test_the_table_of_statuses_names_only_errors_that_exist():
    assert set(STATUS) <= set(all_errors())


def test_what_may_work_later_says_when():
    answer = problem_response(errors.Overloaded("full", 0.2), "req_1")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert problem_response(errors.RateLimited("slow down", 12.3), "r").headers["retry-after"] == "13"


def test_a_path_that_does_not_exist_is_a_problem(platform):
    content = assert_problem(platform.admin.get("/v1/nothing/here"), 404, "NOT_FOUND")
    assert "/v1/nothing/here" in content["detail"]
    assert_problem(platform.client().get("/nothing"), 404, "NOT_FOUND")


def test_a_method_that_does_not_exist_is_a_problem_that_names_the_right_one(platform):
    answer = platform.admin.delete("/v1/me")
    content = assert_problem(answer, 405, "INVALID_REQUEST")
    assert "GET" in content["detail"]
    assert "GET" in answer.headers["allow"]


def test_a_body_that_is_not_json_is_a_problem(platform):
    answer = platform.admin.post(
        "/v1/projects", content=b"{nope", headers={"content-type": "application/json"}
    )
    content = assert_problem(answer, 422, "INVALID_REQUEST")
    assert "not JSON" in content["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00", b"[]", b"null", b'"text"', b"123", b"", b'{"name": 3}', b'{"name": "x", "colour": 1}',
        b'{"name": "\\ud800"}', b'{"name": "a\\u0000b"}', b"[" * 5000, b'{"name": 1e999}', b'{"name": NaN}',
        b'{"name": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda b: repr(b[:24]),
)  # fmt: skip
def test_bodies_of_the_wrong_kind_are_problems(platform, body):
    answer = platform.admin.post("/v1/projects", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, 422, "INVALID_REQUEST")


def test_a_field_that_is_wrong_is_named_with_its_place(platform):
    answer = platform.admin.post("/v1/tokens", json={"name": "", "scopes": ["read", "fly"]})
    fields = assert_problem(answer, 422, "INVALID_REQUEST")["errors"]
    assert {f["field"] for f in fields} == {"body.name", "body.scopes.1"}
    assert all(f["message"] for f in fields)


def test_a_refused_secret_does_not_come_back_in_the_answer(platform):
    answer = platform.client().post("/v1/auth/login", json={"name": "x", "password": 'hunter2"' * 100})
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"not multipart at all"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--',
        ),
        ("application/json", b'{"file": "x"}'),
        ("text/plain", b"x"),
    ],
)
def test_bad_forms_are_problems(platform, content_type, body):
    answer = platform.admin.post("/v1/images", content=body, headers={"content-type": content_type})
    assert_problem(answer, 422, "INVALID_REQUEST")


def test_a_bug_is_answered_without_its_traceback_and_logged_with_the_request_id(platform, caplog):
    platform.engine.health = None  # calling it raises TypeError

    answer = platform.client().get("/readyz", headers={"X-Request-Id": "of-the-test"})

    content = assert_problem(answer, 500, "INTERNAL_ERROR")
    assert "of-the-test" in content["detail"]
    assert "NoneType" not in answer.text
    logged = [r.msg for r in caplog.records if isinstance(r.msg, dict) and r.msg["event"] == "unhandled"]
    assert [type(line["exc_info"]) for line in logged] == [TypeError]
    assert logged[0]["request_id"] == "of-the-test"
    assert platform.client().get("/healthz").status_code == 200


def test_a_lost_database_is_a_problem_and_not_a_bug(platform, monkeypatch):
    def lost():
        raise errors.ServiceUnavailable("the database does not answer", 1.0)

    monkeypatch.setattr(platform.store, "read", lost)
    answer = platform.admin.get("/v1/me")
    assert_problem(answer, 503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


def raw(platform, data, half_close=False):
    parts = urlsplit(platform.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(data)
        if half_close:
            return b""
        answer = b""
        while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
        return answer


def token(platform):
    return platform.admin.headers["authorization"].encode()


def test_connections_that_are_all_taken_do_not_stop_the_event_loop(platform, monkeypatch):
    """By writers that wait for each other: who asks is looked up through a reader of the loop's own."""
    engine, right = platform.store._engine, token(platform).decode().removeprefix("Bearer ")
    # Of the right form and with a token that exists, so that only the database can tell that it is wrong.
    stranger = platform.client(right[:-1] + ("0" if right[-1] != "0" else "1"))
    assert stranger.get("/v1/me").status_code == 401
    monkeypatch.setattr(engine.pool, "_timeout", 0.01)
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(sqlalchemy.exc.TimeoutError):
            while True:
                taken.enter_context(engine.connect())
        assert (
            platform.admin.get("/v1/me").status_code != 401
        )  # the pool is of no use, and the token is known
        assert stranger.get("/v1/me").status_code == 401
    assert platform.admin.get("/v1/me").status_code == 200


def test_a_caller_who_hangs_up_in_the_middle_of_an_upload_harms_nobody(platform, caplog):
    head = b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: " + token(platform)
    head += b"\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n"
    for _ in range(5):
        raw(platform, head, half_close=True)
    assert platform.admin.get("/v1/me").status_code == 200
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_refused_and_harm_nobody(platform, data):
    assert raw(platform, data).startswith(b"HTTP/1.1 400")
    assert platform.admin.get("/v1/me").status_code == 200


def test_a_browser_gets_a_page_for_a_failure_and_the_api_never_does(platform):
    browser = platform.client(headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    answer = browser.get("/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "Not found" in answer.text
    assert_problem(browser.get("/v1/me"), 401, "UNAUTHENTICATED")


def test_a_caller_who_stops_in_the_middle_of_a_body_is_let_go(platform, monkeypatch):
    monkeypatch.setattr(body_limit, "_PATIENCE_S", 0.2)
    head = b"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: " + token(platform)
    head += b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    answer = raw(platform, head)
    assert answer.startswith(b"HTTP/1.1 499")
    assert b"CANCELLED" in answer


def test_a_bug_while_another_failure_is_handled_does_not_pass_for_that_failure():
    def buggy():
        try:
            raise errors.UnknownUser("no such user")
        except errors.UnknownUser:
            raise ValueError("a bug")  # noqa: B904  # without a cause, as bugs come

    with pytest.raises(ValueError, match="a bug") as caught:
        buggy()
    assert type(as_domain_error(caught.value, "req_1")) is errors.InternalError
