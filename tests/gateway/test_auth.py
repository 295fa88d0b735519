"""Logging in and out, passwords, login links, cookies and foreign pages."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from tests.gateway.test_failures import assert_problem

from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Login
from fulcrum.gateway.auth import secrets
from fulcrum.gateway.auth.service import new_link

PASSWORD = "correct horse battery"


def actions(platform, **filters):
    with platform.store.read() as tx:
        assert tx.audit.verify()
        return [e.action for e in tx.audit.list(**filters).items]


@pytest.fixture
def anna(platform):
    """A member with a password."""
    user = platform.new_user("Anna", "analyst")
    client = platform.client(platform.token_of(user))
    assert client.put("/v1/me/password", json={"new_password": PASSWORD}).status_code == 204
    return user


def log_in(platform, password=PASSWORD, name="Anna"):
    browser = platform.client()
    answer = browser.post("/v1/auth/login", json={"name": name, "password": password})
    return browser, answer


def test_the_right_password_begins_a_session_whose_cookie_scripts_cannot_read(platform, anna):
    browser, answer = log_in(platform)
    assert answer.status_code == 200
    assert answer.json()["id"] == anna.id
    cookie = answer.headers["set-cookie"]
    assert re.match(
        r"fulcrum_session=log_[0-9a-z]{26}\.[0-9a-f]{64}; HttpOnly; Max-Age=43200; Path=/; SameSite=lax",
        cookie,
    )
    assert browser.get("/v1/me").json()["name"] == "Anna"
    assert "auth.login" in actions(platform, user_id=anna.id)


def test_a_wrong_password_an_unknown_name_and_a_disabled_user_read_the_same(platform, anna):
    answers = [log_in(platform, "wrong password")[1], log_in(platform, name="nobody at all")[1]]
    with platform.store.write() as tx:
        tx.users.update(anna.id, None, disabled=True)
    answers.append(log_in(platform)[1])
    details = {assert_problem(a, 401, "UNAUTHENTICATED")["detail"] for a in answers}
    assert len(details) == 1
    assert all("set-cookie" not in a.headers for a in answers)
    assert actions(platform).count("auth.login_failed") == 3


def test_passwords_are_kept_as_argon2id(platform, anna):
    with platform.store.read() as tx:
        _, kept = tx.users.password_hash("anna")
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_password_that_is_no_utf_8_is_a_password_too(platform):
    json = {"content-type": "application/json"}
    body = b'{"name": "Anna", "password": "\\ud800 and eleven more"}'
    assert_problem(
        platform.client().post("/v1/auth/login", content=body, headers=json), 401, "UNAUTHENTICATED"
    )
    client = platform.as_user("Anna", "analyst")
    kept = client.put("/v1/me/password", content=b'{"new_password": "\\ud800 and eleven more"}', headers=json)
    assert kept.status_code == 204
    assert platform.client().post("/v1/auth/login", content=body, headers=json).status_code == 200


def test_logging_out_ends_the_session_on_the_server_too(platform, anna):
    browser, _ = log_in(platform)
    cookie = browser.cookies["fulcrum_session"]
    assert browser.post("/v1/auth/logout", headers={"X-Fulcrum-Request": "1"}).status_code == 204
    thief = platform.client(headers={"Cookie": f"fulcrum_session={cookie}"})
    assert_problem(thief.get("/v1/me"), 401, "UNAUTHENTICATED")


def test_a_session_ends_with_its_time(platform, anna):
    secret = secrets.new_secret()
    login = Login(new_id("log"), anna.id, now(), now() + timedelta(milliseconds=1))
    with platform.store.write() as tx:
        tx.logins.add(login, secrets.hash_of(secret))
    late = platform.client(headers={"Cookie": f"fulcrum_session={secrets.pair_text(login.id, secret)}"})
    assert_problem(late.get("/v1/me"), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "cookie", ["", "x", "log_.0", "log_" + "0" * 26 + "." + "0" * 64, '"', "a=b; ; ;=", "\\"]
)
def test_cookies_that_we_never_gave_are_refused(platform, cookie):
    stranger = platform.client(headers={"Cookie": f"fulcrum_session={cookie}"})
    assert_problem(stranger.get("/v1/me"), 401, "UNAUTHENTICATED")


def test_changing_the_password_needs_the_old_one_and_ends_other_sessions(platform, anna):
    mine, _ = log_in(platform)
    other, _ = log_in(platform)
    ours = {"X-Fulcrum-Request": "1"}
    new = {"new_password": "another good password"}
    assert_problem(mine.put("/v1/me/password", json=new, headers=ours), 403, "FORBIDDEN")
    wrong = {**new, "current_password": "not this one"}
    assert_problem(mine.put("/v1/me/password", json=wrong, headers=ours), 403, "FORBIDDEN")
    right = {**new, "current_password": PASSWORD}
    assert mine.put("/v1/me/password", json=right, headers=ours).status_code == 204
    assert mine.get("/v1/me").status_code == 200
    assert_problem(other.get("/v1/me"), 401, "UNAUTHENTICATED")
    assert log_in(platform)[1].status_code == 401
    assert log_in(platform, "another good password")[1].status_code == 200


def test_a_token_that_may_only_write_cannot_take_the_account_over(platform):
    user = platform.new_user("Ben", "analyst")
    client = platform.client(platform.token_of(user, ("read", "write")))
    answer = client.put("/v1/me/password", json={"new_password": "a password of mine"})
    assert_problem(answer, 403, "FORBIDDEN")


def test_short_passwords_are_refused(platform, anna):
    browser, _ = log_in(platform)
    body = {"new_password": "short", "current_password": PASSWORD}
    answer = browser.put("/v1/me/password", json=body, headers={"X-Fulcrum-Request": "1"})
    assert assert_problem(answer, 422, "INVALID_REQUEST")["errors"][0]["field"] == "body.new_password"


# Foreign pages


def test_a_foreign_page_cannot_change_anything_with_the_cookie(platform, anna):
    browser, _ = log_in(platform)
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        answer = browser.post("/v1/projects", json={"name": "stolen"}, headers=headers)
        assert_problem(answer, 403, "FORBIDDEN")
    assert browser.get("/v1/projects", headers={"Origin": "https://evil.example"}).status_code == 200


def test_our_own_page_and_programs_that_say_so_can(platform, anna):
    browser, _ = log_in(platform)
    own = {"Origin": platform.url}
    assert browser.post("/v1/projects", json={"name": "one"}, headers=own).status_code == 201
    ours = {"X-Fulcrum-Request": "1"}
    assert browser.post("/v1/projects", json={"name": "two"}, headers=ours).status_code == 201


def test_a_foreign_page_cannot_log_its_visitor_in_as_somebody_else(platform, anna):
    browser = platform.client(headers={"Origin": "https://evil.example"})
    answer = browser.post("/v1/auth/login", json={"name": "Anna", "password": PASSWORD})
    assert_problem(answer, 403, "FORBIDDEN")
    assert_problem(browser.post("/login", data={"name": "Anna", "password": PASSWORD}), 403, "FORBIDDEN")


def test_cors_is_closed(platform):
    answer = platform.admin.get("/v1/me", headers={"Origin": "https://lab.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = platform.client().options(
        "/v1/projects", headers={"Origin": "https://lab.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code >= 400
    assert "access-control-allow-origin" not in preflight.headers


# Login links


def give_link(platform, user, life=timedelta(hours=1)):
    with platform.store.write() as tx:
        return new_link(tx, user.id, life)


def test_a_link_logs_in_once(platform):
    user = platform.new_user("Carla", "viewer")
    link = give_link(platform, user)
    browser = platform.client()
    answer = browser.post("/v1/auth/links:redeem", json={"link": link})
    assert answer.status_code == 200
    assert browser.get("/v1/me").json()["id"] == user.id
    assert_problem(
        platform.client().post("/v1/auth/links:redeem", json={"link": link}), 401, "UNAUTHENTICATED"
    )


def test_of_many_who_use_a_link_at_once_one_gets_in(platform):
    link = give_link(platform, platform.new_user("Carla", "viewer"))
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(f"{platform.url}/v1/auth/links:redeem", json={"link": link}), range(6)
            )
        )
    assert sorted(a.status_code for a in answers) == [200, 401, 401, 401, 401, 401]


def test_guessing_at_a_link_does_not_burn_it(platform):
    link = give_link(platform, platform.new_user("Carla", "viewer"))
    guess = link.partition(".")[0] + "." + "0" * 64
    assert_problem(
        platform.client().post("/v1/auth/links:redeem", json={"link": guess}), 401, "UNAUTHENTICATED"
    )
    assert platform.client().post("/v1/auth/links:redeem", json={"link": link}).status_code == 200


def test_an_old_link_and_the_link_of_a_disabled_user_let_nobody_in(platform):
    user = platform.new_user("Carla", "viewer")
    old, fresh = give_link(platform, user, timedelta(seconds=-1)), give_link(platform, user)
    with platform.store.write() as tx:
        tx.users.update(user.id, None, disabled=True)
    for link in (old, fresh):
        answer = platform.client().post("/v1/auth/links:redeem", json={"link": link})
        assert_problem(answer, 401, "UNAUTHENTICATED")


def test_a_new_link_makes_the_earlier_ones_worthless(platform):
    with platform.store.write() as tx:
        first, second = new_link(tx, platform.admin_user.id), new_link(tx, platform.admin_user.id)
    for link, status in ((first, 401), (second, 200)):
        assert platform.client().post("/v1/auth/links:redeem", json={"link": link}).status_code == status


def test_a_browser_that_loads_links_in_advance_does_not_use_them_up(platform):
    link = give_link(platform, platform.new_user("Carla", "viewer"))
    prefetching = platform.client()
    page = prefetching.get("/login", params={"link": link})
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    prefetching.head("/login", params={"link": link})
    assert platform.client().post("/v1/auth/links:redeem", json={"link": link}).status_code == 200
