"""How much, how often, how large."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis as Redis_sync
from redis.asyncio import Redis
from tests.gateway.test_failures import assert_problem, raw

from fulcrum.domain.errors import RateLimited
from fulcrum.gateway import rate_limits
from fulcrum.gateway.auth.service import new_link
from fulcrum.gateway.rate_limits import Requests, take


@pytest.fixture
def gateway_settings(gateway_settings):
    return gateway_settings.model_copy(
        update={"requests_per_minute": 6, "request_burst": 5, "logins_per_minute": 2, "max_body_bytes": 2000}
    )


def test_a_user_may_ask_so_often_and_hears_when_to_come_back(platform):
    client = platform.as_user("Anna", "analyst")
    answers = [client.get("/v1/me") for _ in range(7)]
    assert [a.status_code for a in answers] == [200] * 5 + [429] * 2
    assert [a.headers["ratelimit-remaining"] for a in answers[:5]] == ["4", "3", "2", "1", "0"]
    assert answers[0].headers["ratelimit-limit"] == "5"
    assert_problem(answers[-1], 429, "RATE_LIMITED")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10


def test_all_tokens_of_a_user_count_together_and_other_users_do_not_notice(platform):
    user = platform.new_user("Anna", "analyst")
    clients = [platform.client(platform.token_of(user)) for _ in range(3)]
    codes = [c.get("/v1/me").status_code for c in clients for _ in range(2)]
    assert codes == [200] * 5 + [429]
    assert platform.as_user("Ben", "analyst").get("/v1/me").status_code == 200


def test_probes_are_not_counted(platform):
    assert {platform.client().get("/healthz").status_code for _ in range(8)} == {200}


@pytest.mark.parametrize("path", ["/v1/auth/login", "/login"])
def test_passwords_cannot_be_guessed_fast(platform, path):
    answers = []
    for number in range(4):
        body = {"name": "Anna", "password": f"guess number {number}"}
        form = {"json": body} if path.startswith("/v1") else {"data": body}
        answers.append(platform.client().post(path, **form))
    assert [a.status_code for a in answers] == [401, 401, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    if path.startswith("/v1"):
        assert_problem(answers[-1], 429, "RATE_LIMITED")
    else:
        assert "attempts to log in" in answers[-1].text


def test_other_spellings_of_a_name_are_no_further_attempts(platform):
    # Each is "admin" to the store: full-width letters, a mathematical one, capitals.
    names = ["admin", "\uff41dmin", "a\U0001d41dmin", "ADM\uff29N"]
    codes = []
    for number, name in enumerate(names):
        # From different places, so that the address is not what is counted.
        with Redis_sync.from_url(platform.settings.redis_url.get_secret_value()) as redis:
            redis.delete("fulcrum:rate:login:address:127.0.0.1")
        body = {"name": name, "password": f"guess number {number}"}
        codes.append(platform.client().post("/v1/auth/login", json=body).status_code)
    assert codes == [401, 401, 429, 429]


@pytest.mark.parametrize("path", ["/v1/me/password", "/account/password"])
def test_who_stole_a_session_cannot_guess_the_password_fast(platform, path):
    browser = platform.client(headers={"X-Fulcrum-Request": "1"})
    with platform.store.write() as tx:
        link = new_link(tx, platform.admin_user.id)
        tx.users.set_password_hash(platform.admin_user.id, "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA")
    assert browser.post("/v1/auth/links:redeem", json={"link": link}).status_code == 200
    answers = []
    for number in range(3):
        body = {"current_password": f"guess number {number}", "new_password": "a password of mine"}
        if path.startswith("/v1"):
            answers.append(browser.put(path, json=body))
        else:
            answers.append(browser.post(path, data=body))
    assert [a.status_code for a in answers] == [403, 403, 429]
    assert "attempts to change the password" in answers[-1].text


def test_links_cannot_be_guessed_fast(platform):
    body = {"link": "lnk_" + "0" * 26 + "." + "0" * 64}
    codes = [platform.client().post("/v1/auth/links:redeem", json=body).status_code for _ in range(4)]
    assert codes == [401, 401, 429, 429]


def test_the_mean_rate_holds_and_the_burst_is_exact_whoever_asks_at_once(empty_redis):
    async def ask():
        redis = Redis.from_url(empty_redis)
        try:
            taken = await asyncio.gather(*(take(redis, "k", 6, 20) for _ in range(50)))
            return [a for a in taken if a.retry_after_s is None], taken
        finally:
            await redis.aclose()

    allowed, taken = asyncio.run(ask())
    assert len(allowed) == 20
    assert sorted(a.remaining for a in allowed) == list(range(20))
    waits = [a.retry_after_s for a in taken if a.retry_after_s is not None]
    assert all(0 < w <= 10 for w in waits)


@pytest.mark.parametrize("burst", [1, 20])
def test_who_is_let_in_while_redis_counts_gets_no_more_than_the_burst(empty_redis, burst):
    async def ask():
        redis, requests = Redis.from_url(empty_redis), Requests()

        async def one():
            return await (await requests.take(redis, "usr_1", 6, burst))

        try:
            first = await one()
            return first, await asyncio.gather(*(one() for _ in range(50)), return_exceptions=True)
        finally:
            await redis.aclose()

    first, others = asyncio.run(ask())
    allowed = [a for a in others if not isinstance(a, RateLimited)]
    assert first.remaining == burst - 1
    assert sorted(a.remaining for a in allowed) == list(range(burst - 1))


def test_only_who_is_far_from_the_limit_is_let_in_while_redis_counts(monkeypatch):
    class SlowRedis:
        """Says what is left when it is let go."""

        def __init__(self):
            self.remaining, self.go = 200, asyncio.Event()

        async def eval(self, *_):
            await self.go.wait()
            self.remaining -= 1
            return (1, self.remaining, 0, 0) if self.remaining >= 0 else (0, 0, 1000, 0)

    async def ask():
        redis, requests = SlowRedis(), Requests()

        def take():
            return asyncio.ensure_future(requests.take(redis, "usr_1", 6, 200))

        async def let_in():
            waiting = [take() for _ in range(20)]
            await asyncio.sleep(0.05)
            n = sum(t.done() for t in waiting)
            redis.go.set()
            await asyncio.gather(*(await asyncio.gather(*waiting)))
            redis.go.clear()
            return n

        first = take()
        await asyncio.sleep(0.05)
        assert not first.done()  # nothing is known of this user
        redis.go.set()
        await (await first)
        redis.go.clear()
        assert await let_in() == 8  # at once, and no more uncounted
        redis.remaining = 101
        redis.go.set()
        await (await take())
        redis.go.clear()
        assert await let_in() == 0  # down to half of what is allowed
        redis.remaining = 250
        redis.go.set()
        await (await take())
        redis.go.clear()
        monkeypatch.setattr(rate_limits, "_KNOWN_S", 0.0)
        assert await let_in() == 0  # too long ago
        monkeypatch.undo()
        redis.remaining = 250
        redis.go.set()
        await (await take())
        redis.go.clear()
        known = [take() for _ in range(3)]
        await asyncio.sleep(0.05)
        redis.remaining = 0  # other gateways took the rest meanwhile
        redis.go.set()
        assert all(t.done() for t in known)
        refused = await asyncio.gather(*(await asyncio.gather(*known)), return_exceptions=True)
        assert all(isinstance(e, RateLimited) for e in refused)
        with pytest.raises(RateLimited):
            await take()

    asyncio.run(ask())


def test_allowances_come_back_with_time(empty_redis):
    async def ask():
        redis = Redis.from_url(empty_redis)
        try:
            first = await take(redis, "k", 600, 1)  # one in 0.1 s
            second = await take(redis, "k", 600, 1)
            await asyncio.sleep(second.retry_after_s + 0.01)
            return first, second, await take(redis, "k", 600, 1)
        finally:
            await redis.aclose()

    first, second, third = asyncio.run(ask())
    assert first.retry_after_s is None
    assert 0 < second.retry_after_s <= 0.1
    assert third.retry_after_s is None


def test_large_bodies_are_refused_before_they_are_read(platform):
    announced = platform.admin.post("/v1/projects", json={"name": "x" * 3000})
    assert_problem(announced, 413, "PAYLOAD_TOO_LARGE")


def test_large_bodies_without_an_announced_length_are_refused_while_they_come(platform):
    sent = []

    def chunks():
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 1000

    answer = platform.admin.post(
        "/v1/projects", content=chunks(), headers={"content-type": "application/json"}
    )
    content = assert_problem(answer, 413, "PAYLOAD_TOO_LARGE")
    assert "2000" in content["detail"]


def test_strangers_are_refused_before_their_upload_is_read(platform):
    head = b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
    assert raw(platform, head).startswith(b"HTTP/1.1 401")


class TestWithoutRedis:
    @pytest.fixture
    def gateway_settings(self, gateway_settings, tmp_path):
        return gateway_settings.model_copy(
            update={"redis_url": SecretStr(f"unix://{tmp_path / 'gone.sock'}")}
        )

    def test_work_goes_on_uncounted_but_nobody_can_try_passwords(self, platform):
        assert {platform.admin.get("/v1/me").status_code for _ in range(8)} == {200}
        answer = platform.client().post("/v1/auth/login", json={"name": "Anna", "password": "a guess"})
        assert_problem(answer, 503, "SERVICE_UNAVAILABLE")
        ready = platform.client().get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["redis"] != "ok"


def test_many_at_once_are_all_answered(platform):
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: httpx.get(f"{platform.url}/healthz").status_code, range(64)))
    assert set(codes) == {200}
