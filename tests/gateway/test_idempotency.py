"""A repeated POST with the same Idempotency-Key is done once."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
from tests.gateway.pictures import encoded, part
from tests.gateway.test_failures import assert_problem

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.gateway.middleware.idempotency import SECRET_ANSWERS


def post(client, key, name="A project"):
    return client.post("/v1/projects", json={"name": name}, headers={"Idempotency-Key": key})


def test_the_second_answer_is_the_first_one_again(platform):
    first, second = post(platform.admin, "k1"), post(platform.admin, "k1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["etag"] == first.headers["etag"]
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(platform.admin.get("/v1/projects").json()["items"]) == 2


def test_a_secret_in_an_answer_is_kept_for_nobody_else(platform):
    mine = platform.admin.post("/v1/tokens", json={"name": "x"}, headers={"Idempotency-Key": "k"})
    other = platform.as_user("Anna", "admin").post(
        "/v1/tokens", json={"name": "x"}, headers={"Idempotency-Key": "k"}
    )
    assert other.status_code == 201
    assert other.json()["token"] != mine.json()["token"]


def test_a_secret_in_an_answer_is_not_kept_and_the_repeated_request_does_nothing_again(platform):
    someone = platform.new_user("Anna", "analyst")
    invite = f"/v1/users/{someone.id}:invite"
    for number, (path, body, shown) in enumerate(
        [
            ("/v1/tokens", {"name": "x"}, "token"),
            ("/v1/users", {"name": "Ben"}, "login_link"),
            (invite, None, "login_link"),
        ]
    ):
        headers = {"Idempotency-Key": f"k{number}"}
        first = platform.admin.post(path, json=body, headers=headers)
        assert first.status_code == 201
        secret = first.json()[shown][-64:]
        second = platform.admin.post(path, json=body, headers=headers)
        assert "shown once" in assert_problem(second, 409, "CONFLICT")["detail"]
        with closing(sqlite3.connect(platform.settings.database_url.removeprefix("sqlite:///"))) as database:
            assert secret not in "\n".join(database.iterdump())
    assert len([t for t in platform.admin.get("/v1/tokens").json()["items"] if t["name"] == "x"]) == 1


def test_every_answer_with_a_secret_is_known_as_such(platform):
    schema = platform.app.openapi()
    secret = {
        name
        for name, content in schema["components"]["schemas"].items()
        if {"token", "login_link"} & set(content.get("properties", ()))
    }
    shown = set()
    for path, verbs in schema["paths"].items():
        content = verbs.get("post", {}).get("responses", {}).get("201", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if reference.rpartition("/")[2] in secret:
            shown.add(path)
    assert len(shown) == 3
    assert all(SECRET_ANSWERS.fullmatch(path.replace("{user_id}", "usr_1")) for path in shown)


def test_the_key_of_another_request_is_a_conflict(platform):
    post(platform.admin, "k1")
    assert_problem(post(platform.admin, "k1", "Another project"), 409, "IDEMPOTENCY_CONFLICT")
    elsewhere = platform.admin.post("/v1/tokens", json={"name": "x"}, headers={"Idempotency-Key": "k1"})
    assert_problem(elsewhere, 409, "IDEMPOTENCY_CONFLICT")


def test_a_refusal_is_kept_too_but_a_failure_of_ours_runs_again(platform):
    assert_problem(post(platform.admin, "k1", platform.project.name), 409, "ALREADY_EXISTS")
    assert post(platform.admin, "k1", platform.project.name).headers["idempotency-replayed"] == "true"

    real = platform.store.write
    calls = []

    def fails_once():
        calls.append(1)
        if len(calls) == 2:  # the first one opens the key
            raise ServiceUnavailable("the database is away", 1.0)
        return real()

    platform.store.write = fails_once
    try:
        assert_problem(post(platform.admin, "k2"), 503, "SERVICE_UNAVAILABLE")
        assert post(platform.admin, "k2").status_code == 201
    finally:
        del platform.store.write


def test_what_was_done_is_not_done_again_although_its_answer_could_not_be_kept(platform):
    real = platform.store.write
    calls = []

    def fails_at_the_end():
        calls.append(1)
        if len(calls) == 3:  # the first opens the key, the second does the work
            raise ServiceUnavailable("the database is away", 1.0)
        return real()

    def begin():
        return platform.admin.post("/v1/sessions", json={"title": "x"}, headers={"Idempotency-Key": "k1"})

    platform.admin.get("/v1/me")  # the token's last use is noted, which is a write
    platform.store.write = fails_at_the_end
    try:
        assert begin().status_code == 201
    finally:
        del platform.store.write
    assert len(calls) == 3
    assert_problem(begin(), 409, "IDEMPOTENCY_CONFLICT")
    assert len(platform.admin.get("/v1/sessions").json()["items"]) == 1


def test_of_many_at_once_one_is_done(platform):
    barrier = threading.Barrier(8)

    def ask(_):
        with httpx.Client(base_url=platform.url, headers=platform.admin.headers) as client:
            barrier.wait(10)
            return post(client, "k1")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert {a.status_code for a in answers} <= {201, 409}
    assert all(a.json()["reason"] == "IDEMPOTENCY_CONFLICT" for a in answers if a.status_code == 409)
    assert len({a.json()["id"] for a in answers if a.status_code == 201}) == 1
    assert len(platform.admin.get("/v1/projects").json()["items"]) == 2


def test_a_form_that_is_sent_again_is_the_same_request_although_its_boundary_is_another(platform):
    def upload(content):
        return platform.admin.post("/v1/images", files=part(content), headers={"Idempotency-Key": "k1"})

    first, second = upload(encoded()), upload(encoded())
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotency-replayed"] == "true"
    assert first.request.headers["content-type"] != second.request.headers["content-type"]
    assert_problem(upload(encoded(colour=(1, 2, 3))), 409, "IDEMPOTENCY_CONFLICT")


def test_a_large_form_arrives_whole(platform):
    big = encoded("PNG", (1500, 1500)) + bytes(3 << 20)  # beyond what waits in memory
    answer = platform.admin.post("/v1/images", files=part(big), headers={"Idempotency-Key": "k1"})
    assert answer.json()["size_bytes"] == len(big)


def test_keys_that_cannot_be_kept_are_refused(platform):
    for key in ("", "x" * 256, "a b"):
        assert_problem(post(platform.admin, key), 422, "INVALID_REQUEST")


def test_without_a_key_every_post_counts(platform):
    for name in ("one", "two"):
        assert platform.admin.post("/v1/projects", json={"name": name}).status_code == 201
    assert_problem(platform.admin.post("/v1/projects", json={"name": "two"}), 409, "ALREADY_EXISTS")
