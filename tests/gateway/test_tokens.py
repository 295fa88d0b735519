"""API tokens: shown once, kept as hashes, limited by scope and time."""

import re
from datetime import timedelta

import pytest
from tests.gateway.test_failures import assert_problem

from fulcrum.domain.identifiers import now


def make(client, **fields):
    return client.post("/v1/tokens", json={"name": "notebook", **fields})


def test_a_token_is_shown_once_and_works(platform):
    client = platform.as_user("Anna", "analyst")
    answer = make(client, scopes=["read", "write"])
    assert answer.status_code == 201
    text, record = answer.json()["token"], answer.json()["record"]
    assert re.fullmatch(r"fct_tok_[0-9a-z]{26}_[0-9a-f]{64}", text)
    assert text.startswith(f"fct_{record['id']}_")
    listed = client.get("/v1/tokens")
    assert text not in listed.text
    assert text.rpartition("_")[2] not in listed.text
    assert platform.client(text).get("/v1/me").json()["name"] == "Anna"


def test_neither_the_database_nor_the_log_holds_the_secret(platform, caplog, tmp_path):
    text = make(platform.admin).json()["token"]
    platform.client(text).get("/v1/me")
    secret = text.rpartition("_")[2]
    files = [p for p in tmp_path.iterdir() if p.name.startswith("fulcrum.db")]
    assert files
    assert all(secret.encode() not in p.read_bytes() for p in files)
    assert all(secret not in str(r.msg) for r in caplog.records)


def test_a_revoked_token_is_refused_from_then_on(platform):
    client = platform.as_user("Anna", "analyst")
    made = make(client).json()
    assert client.delete(f"/v1/tokens/{made['record']['id']}").status_code == 204
    assert_problem(platform.client(made["token"]).get("/v1/me"), 401, "UNAUTHENTICATED")
    with platform.store.read() as tx:
        assert [e.action for e in tx.audit.list().items] == ["token.revoke", "token.create"]


def test_an_expired_token_is_refused(platform):
    at = now() + timedelta(seconds=1)
    made = make(platform.admin, expires_at=at.isoformat()).json()
    client = platform.client(made["token"])
    answer = client.get("/v1/me")
    while now() < at:
        answer = client.get("/v1/me")
    answer = client.get("/v1/me")
    content = assert_problem(answer, 401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "expired" in content["detail"]


@pytest.mark.parametrize(
    "expires_at", ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00", "tomorrow", 5e300, "+10000-01-01"]
)
def test_times_that_make_no_sense_are_refused(platform, expires_at):
    assert_problem(make(platform.admin, expires_at=expires_at), 422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer x",
        "Bearer x y",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer fct_tok_" + "0" * 26 + "_" + "0" * 64,
        "fct",
    ],
)
def test_credentials_that_we_never_gave_are_refused(platform, header):
    assert_problem(platform.client().get("/v1/me", headers={"Authorization": header}), 401, "UNAUTHENTICATED")


def test_the_secret_of_another_token_does_not_help(platform):
    first, second = make(platform.admin).json(), make(platform.admin).json()
    mixed = f"fct_{first['record']['id']}_{second['token'].rpartition('_')[2]}"
    assert_problem(platform.client(mixed).get("/v1/me"), 401, "UNAUTHENTICATED")


def test_a_token_cannot_make_a_mightier_one(platform):
    user = platform.new_user("Anna", "admin")
    writer = platform.client(platform.token_of(user, ("read", "write")))
    assert make(writer, scopes=["read"]).status_code == 201
    assert_problem(make(writer, scopes=["admin"]), 403, "FORBIDDEN")
    reader = platform.client(platform.token_of(user, ("read",)))
    assert_problem(make(reader, scopes=["read"]), 403, "FORBIDDEN")


def test_scopes_limit_what_the_role_allows(platform):
    user = platform.new_user("Anna", "admin")
    reader = platform.client(platform.token_of(user, ("read",)))
    writer = platform.client(platform.token_of(user, ("write",)))
    member = f"/v1/projects/{platform.project.id}/members/{platform.admin_user.id}"
    assert reader.get("/v1/projects").status_code == 200
    assert_problem(reader.post("/v1/projects", json={"name": "x"}), 403, "FORBIDDEN")
    assert writer.post("/v1/projects", json={"name": "x"}).status_code == 201
    assert_problem(writer.put(member, json={"role": "viewer"}), 403, "FORBIDDEN")


def test_nobody_sees_or_revokes_the_tokens_of_others_but_the_platform_admin(platform):
    made = make(platform.as_user("Anna", "analyst")).json()
    ben = platform.as_user("Ben", "admin")
    path = f"/v1/tokens/{made['record']['id']}"
    assert made["record"]["id"] not in ben.get("/v1/tokens").text
    assert_problem(ben.delete(path), 404, "UNKNOWN_TOKEN")
    assert platform.admin.delete(path).status_code == 204


def test_a_token_that_leaked_can_end_itself(platform):
    made = make(platform.admin, scopes=["read"]).json()
    leaked = platform.client(made["token"])
    assert leaked.delete(f"/v1/tokens/{made['record']['id']}").status_code == 204
    assert_problem(leaked.get("/v1/me"), 401, "UNAUTHENTICATED")


def test_the_last_use_is_noted(platform):
    made = make(platform.admin).json()
    platform.client(made["token"]).get("/v1/me")
    listed = platform.admin.get("/v1/tokens").json()["items"]
    used = {t["id"]: t["last_used_at"] for t in listed}
    assert used[made["record"]["id"]] is not None


def test_lists_come_in_pages(platform):
    client = platform.as_user("Anna", "analyst")
    names = [f"token {n}" for n in range(5)]
    for name in names:
        make(client, name=name)
    seen, cursor = [], None
    while True:
        page = client.get("/v1/tokens", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [t["name"] for t in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [*reversed(names), "of a test"]
    for bad in ("x", "0", "e30", "%00"):
        assert_problem(client.get(f"/v1/tokens?cursor={bad}"), 422, "INVALID_REQUEST")
    for limit in (0, 201, "many"):
        assert_problem(client.get("/v1/tokens", params={"limit": limit}), 422, "INVALID_REQUEST")


def test_a_time_that_no_calendar_has_is_refused(platform):
    body = {"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}
    assert (
        "9999"
        in assert_problem(platform.admin.post("/v1/tokens", json=body), 422, "INVALID_REQUEST")["detail"]
    )
