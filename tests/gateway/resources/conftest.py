"""The resources over everything real: uvicorn, SQLite, Redis, and inference behind gRPC with the demo model."""

import io
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.inference.running import Running

from fulcrum.demo.shipped import demo_task
from fulcrum.demo.world import render
from fulcrum.demo.world_dataset import natural_scene
from fulcrum.domain.codec import to_json
from fulcrum.gateway.settings import Settings
from fulcrum.store.artifacts import open_artifacts

TASK = to_json(demo_task())


@pytest.fixture(scope="session")
def shared_artifacts(tmp_path_factory):
    """One folder for all tests: what lies there is named by its content."""
    return f"file://{tmp_path_factory.mktemp('artifacts')}"


@pytest.fixture(scope="session")
def inference(shared_artifacts):
    with Running(artifacts_url=shared_artifacts) as service:
        yield service


@pytest.fixture
def artifacts(shared_artifacts):
    return open_artifacts(shared_artifacts)


@pytest.fixture
def engine():
    """None: the gateway opens its own client from the settings."""
    return


@pytest.fixture
def gateway_settings(inference, shared_artifacts, empty_redis, tmp_path):
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=shared_artifacts,
        redis_url=empty_redis,
        inference_address=inference.address,
        requests_per_minute=100_000,
        request_burst=10_000,
        max_weights_bytes=32 << 20,
    )


def picture(seed: int = 0, label: str = "cup") -> bytes:
    """PNG of a drawn object."""
    file = io.BytesIO()
    pixels = render(natural_scene(np.random.default_rng(seed), label)).image
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Lab:
    """A platform with the demo model and SAE registered and loaded, and one image."""

    platform: Any
    client: httpx.Client
    model: dict[str, Any]
    sae: dict[str, Any]
    image: dict[str, Any]

    def post(self, path: str, expected: int = 200, **body: Any) -> Any:
        found = self.client.post(path, json=body)
        assert found.status_code == expected, found.text
        return found.json()

    def ask(self, verb: str, expected: int = 200, **body: Any) -> Any:
        return self.post(
            f"/v1/images/{self.image['id']}:{verb}",
            expected,
            **{"sae_id": self.sae["id"], "task": TASK} | body,
        )

    def stream(self, verb: str, **body: Any) -> list[tuple[str, Any]]:
        """Events of a stream as (name, data)."""
        body = {"sae_id": self.sae["id"], "task": TASK} | body
        with self.client.stream("POST", f"/v1/images/{self.image['id']}:{verb}", json=body) as answer:
            answer.read()
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("text/event-stream")
            return events_of(answer.text)

    def upload(self, content: bytes, expected: int = 201) -> dict[str, Any]:
        found = self.client.post("/v1/images", files={"file": ("a.png", content, "image/png")})
        assert found.status_code == expected, found.text
        return dict(found.json())


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def wait_until_loaded(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        record = client.get(path).json()
        if record["state"] != "loading":
            return dict(record)
        assert time.monotonic() < deadline, record
        time.sleep(0.02)


def register_demo(client: httpx.Client) -> tuple[dict[str, Any], dict[str, Any]]:
    answer = client.post("/v1/models", json={"name": "demo", "model_name": "folder:demo/clip"})
    assert answer.status_code == 201, answer.text
    model = wait_until_loaded(client, f"/v1/models/{answer.json()['id']}")
    assert model["state"] == "ready", model
    body = {"name": "demo", "model_id": model["id"], "source": "folder:demo/sae"}
    answer = client.post("/v1/saes", json=body)
    assert answer.status_code == 201, answer.text
    sae = wait_until_loaded(client, f"/v1/saes/{answer.json()['id']}")
    assert sae["state"] == "ready", sae
    return model, sae


@pytest.fixture
def lab(platform):
    model, sae = register_demo(platform.admin)
    made = Lab(platform, platform.admin, model, sae, {})
    made.image = made.upload(picture())
    return made
