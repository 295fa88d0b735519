"""Failures of a real gateway: away, restarted, limited, without its engine."""

import contextlib
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image
from tests.gateway.conftest import served, token_of
from tests.gateway.engine import DEMO_MODEL, DEMO_SAE

from fulcrum.client import ClassSet, Client, ModelRef
from fulcrum.domain import errors
from fulcrum.gateway.app import create_app

TASK = ClassSet(("a", "b"))


@pytest.fixture
def picture():
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user), retries=1) as opened:
        yield opened


@pytest.fixture
def ready(client):
    model = client.models.wait(client.models.create("demo", ModelRef(DEMO_MODEL)))
    client.saes.wait(client.saes.create("demo", model, DEMO_SAE))
    return client


def test_an_engine_that_is_away_is_a_clear_error_after_the_retries(ready, picture, engine):
    image, sae = ready.images.upload(picture), ready.saes.choose()
    engine.down = errors.ServiceUnavailable("inference does not answer", 1.0)
    begun = time.monotonic()
    with pytest.raises(errors.ServiceUnavailable, match="inference does not answer"):
        ready.explain(image, TASK, sae=sae)
    assert 1.0 <= time.monotonic() - begun < 10
    engine.down = None
    assert ready.explain(image, TASK, sae=sae, n_latents=1).prediction.class_names == TASK.names


def test_an_engine_that_comes_back_meanwhile_is_not_noticed(ready, picture, engine):
    image, sae = ready.images.upload(picture), ready.saes.choose()
    engine.down = errors.Overloaded("full", 1.0)
    healed = threading.Timer(0.3, lambda: setattr(engine, "down", None))
    healed.start()
    with contextlib.closing(ready):
        assert ready.explain(image, TASK, sae=sae, n_latents=1).latents
    healed.join()


def test_the_proxy_of_a_lab_is_not_asked_for_the_platform_of_this_machine(platform, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(platform.url, platform.token_of(platform.admin_user), retries=0) as client:
        assert client.me().name == "admin"


class TestLimits:
    @pytest.fixture
    def gateway_settings(self, gateway_settings):
        return gateway_settings.model_copy(update={"requests_per_minute": 600, "request_burst": 3})

    def test_an_asker_in_a_hurry_is_slowed_down_and_not_refused(self, platform):
        with Client(platform.url, platform.token_of(platform.admin_user), retries=6) as client:
            for _ in range(6):
                assert client.me().name == "admin"

    def test_without_retries_the_limit_is_an_error_with_its_wait(self, platform):
        with (
            Client(platform.url, platform.token_of(platform.admin_user), retries=0) as client,
            pytest.raises(errors.RateLimited) as caught,
        ):
            [client.me() for _ in range(10)]
        assert caught.value.retry_after_s >= 1


def test_a_platform_that_is_started_anew_is_found_again_by_the_same_client(
    gateway_settings, store, artifacts, engine, platform, tmp_path, monkeypatch
):
    file = tmp_path / "client.json"
    monkeypatch.setenv("FULCRUM_CLIENT_FILE", str(file))

    def written(url):
        token = token_of(store, platform.admin_user)
        file.write_text(json.dumps({"url": url, "token": token}))
        return token

    def app():
        return create_app(gateway_settings, engine=engine, store=store, artifacts=artifacts)

    with served(app()) as url:
        first = written(url)
        client = Client(retries=0)
        assert client.me().name == "admin"
    with served(app()) as url:  # on another port, and with another token: `fulcrum up` again
        written(url)
        client.tokens.delete(first.split("_", 1)[1].rpartition("_")[0])
        assert client.me().name == "admin"
        assert client.url == url
    with client, pytest.raises(errors.ServiceUnavailable, match="does not answer"):
        client.me()


def test_a_client_that_gives_up_waiting_gets_its_own_deadline(ready, picture, platform):
    image, sae = ready.images.upload(picture), ready.saes.choose()
    with (
        Client(platform.url, platform.token_of(platform.admin_user), timeout_s=0.02) as hasty,
        pytest.raises(errors.DeadlineExceeded, match=r"timeout_s=0\.02"),
    ):
        hasty.explain(image, ClassSet(tuple(f"thing {n}" for n in range(200))), sae=sae, n_latents=200)
    assert ready.explain(image, TASK, n_latents=1).latents


def test_a_post_whose_answer_was_lost_is_carried_out_once(platform, client):
    """The first answer never arrives; the second attempt, with the same key, gets that answer."""
    import httpx

    lost = []

    class LosesTheFirst(httpx.HTTPTransport):
        def handle_request(self, request):
            response = super().handle_request(request)
            if request.method == "POST" and not lost:
                response.read()
                response.close()
                lost.append(request)
                raise httpx.ReadError("connection reset by peer", request=request)
            return response

    token = platform.token_of(platform.admin_user)
    with Client(platform.url, token, transport=LosesTheFirst()) as unlucky:
        made = unlucky.datasets.create("only once")
    assert len(lost) == 1
    assert [d.id for d in client.datasets.list()] == [made.id]
