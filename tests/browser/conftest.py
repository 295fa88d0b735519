"""The whole platform with a small demo world, and a real browser in front of it."""

import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fulcrum.client import Client
from fulcrum.demo.shipped import WEIGHTS, demo_task, served_model, served_sae
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.records import DatasetRecord, SaeRecord
from fulcrum.local.platform import Platform, Started
from fulcrum.local.settings import read_settings

SHOTS = os.environ.get("FULCRUM_TEST_SHOTS")  # a folder for pictures of what failed
CHROMIUM = shutil.which("chromium")
_PATIENCE_MS = 60_000


@dataclass
class World:
    """What the tests find on the platform."""

    started: Started
    client: Client
    dataset: DatasetRecord
    sae: SaeRecord
    folder: Path
    models: Path


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def world(browser, tmp_path_factory):
    """`browser` first: without one nothing is started."""
    home = tmp_path_factory.mktemp("platform")
    folder = home / "world"
    write_demo_dataset(
        folder, n_pairs={"discover": 24, "select": 24, "confirm": 48}, n_right=6, n_neutral=6, n_cues=6
    )
    models = home / "models"
    models.mkdir()
    named = {"world": str(folder), "lab": str(models)}
    environment = {**os.environ, "FULCRUM_WORKER_FOLDERS": json.dumps(named)}
    settings = read_settings(data_dir=home / "data", client_file=home / "client.json")
    platform = Platform(settings, environment, folders={"demo": WEIGHTS}, canary_model="folder:demo/clip")
    with platform as started, Client(started.url, started.token) as client:
        model = client.models.wait(client.models.create("demo CLIP", served_model()))
        sae = client.saes.wait(client.saes.create("demo SAE", model, served_sae()))
        dataset = client.datasets.create("Small world", class_names=demo_task().names)
        _done(client, client.datasets.import_images(dataset, "folder:world"))
        _done(client, client.latents.describe(sae, dataset, vocabulary=demo_task().names))
        yield World(started, client, client.datasets.get(dataset), sae, folder, models)


def _done(client, job):
    ended = client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error


@pytest.fixture(scope="module")
def admin_state(browser, world):
    """Cookies of the administrator, who followed the link that `fulcrum up` prints."""
    context = browser.new_context()
    page = context.new_page()
    follow(page, world.started.login_link)
    page.wait_for_url(f"{world.started.frontend_url}/**", timeout=_PATIENCE_MS)
    state = context.storage_state()
    context.close()
    return state


def follow(page, link):
    """A login link: one button, so that a browser that loads links in advance does not use it up."""
    page.goto(link)
    page.get_by_role("button", name="Continue to Fulcrum").click()


@contextmanager
def opened(browser, state, width=1280, height=900):
    """A page that fails the test for what it wrote into its console."""
    context = browser.new_context(storage_state=state, viewport={"width": width, "height": height})
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if _is_wrong(m) else None)
    page.on(
        "response",
        lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None,
    )
    try:
        yield page
        assert wrong == []
    except BaseException:
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"failed-{time.time():.0f}.png", full_page=True)
        raise
    finally:
        context.close()


def _is_wrong(message):
    # The text names no address; the response above does.
    return message.type == "error" and "Failed to load resource" not in message.text


@pytest.fixture
def page(browser, admin_state, request):
    with opened(browser, admin_state) as found:
        yield found
        if SHOTS:
            name = "".join(c if c.isalnum() else "-" for c in request.node.name)
            found.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def client_of(world, link):
    """A client that asks as the person who was given this login link."""
    secret = parse_qs(urlsplit(link).query)["link"][0]
    answer = httpx.post(f"{world.started.url}/v1/auth/links:redeem", json={"link": secret}, timeout=60)
    return Client(world.started.url, login=answer.raise_for_status().cookies["fulcrum_session"])


def go(page, world, path=""):
    """Opens a page and waits until its script has run."""
    page.goto(f"{world.started.frontend_url}/{path}")
    settled(page)


def settled(page):
    """Until no script runs and nothing is a skeleton."""
    page.wait_for_selector('[data-testid="stMain"]')
    page.wait_for_function(
        """() => {
          const app = document.querySelector('[data-testid="stApp"]');
          return app && app.getAttribute('data-test-script-state') !== 'running'
            && !document.querySelector('[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]');
        }"""
    )
