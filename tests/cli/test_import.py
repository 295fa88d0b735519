"""`fulcrum import` against a running gateway, with a worker in this process."""

import json
import threading
import time

import pytest
from tests.client.conftest import no_gateway_of_the_developer  # noqa: F401
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import zipped
from tests.gateway.conftest import (  # noqa: F401
    artifacts,
    empty_redis,
    engine,
    gateway_settings,
    local_engine,
    migrated,
    platform,
    redis_url,
    store,
)

from fulcrum.cli.main import run as run_command
from fulcrum.client import Client
from fulcrum.domain.models import ModelRef
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner


@pytest.fixture
def client(platform, monkeypatch):  # noqa: F811
    token = platform.token_of(platform.admin_user)
    monkeypatch.setenv("FULCRUM_CLIENT_URL", platform.url)
    monkeypatch.setenv("FULCRUM_CLIENT_TOKEN", token)
    with Client(platform.url, token) as opened:
        yield opened


@pytest.fixture
def working(platform, tmp_path):  # noqa: F811
    """A worker that looks again and again, and the folder that it allows."""
    (tmp_path / "lab").mkdir()
    machine = Machine(
        platform.store, platform.artifacts, tmp_path / "scratch", folders={"lab": tmp_path / "lab"}
    )
    runner, ended = Runner(machine, {"import_dataset": ImportDatasetHandler()}), threading.Event()

    def work():
        while not ended.is_set():
            runner.run_until_idle()
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    yield tmp_path
    ended.set()
    thread.join()


def run(arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as ended:
        run_command(arguments)
    return ended.value.code


def fill(folder, n=8):
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i)))
    return folder


def test_a_folder_becomes_a_data_set_and_its_progress_is_told(client, working, capfd):
    folder = fill(working / "street signs")
    assert run(["import", str(folder), "--seed", "2", "--json"]) == 0
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert found["dataset"]["name"] == "street signs"
    assert found["dataset"]["n_images"] == found["report"]["n_images"] == 8
    assert (found["job"]["state"], found["job"]["spec"]["seed"]) == ("succeeded", 2)
    assert "8 images (image_folder)" in said.err
    assert client.datasets.get(found["dataset"]["id"]).state == "ready"


def test_an_archive_replaces_the_content_of_a_data_set_that_is_named(client, working, capfd):
    dataset = client.datasets.create("signs")
    path = working / "signs.zip"
    path.write_bytes(zipped({f"a/{i}.png": encoded(picture(i)) for i in range(5)}))
    assert run(["import", str(path), "--into", dataset.id]) == 0
    said = capfd.readouterr().out
    assert f"signs {dataset.id}: 5 images" in said
    assert client.datasets.get(dataset).n_images == 5


def test_a_place_of_the_platform_is_imported_without_sending_anything(client, working, capfd):
    fill(working / "lab" / "letters", 6)
    assert run(["import", "folder:lab/letters", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["dataset"]["name"], found["report"]["source"]) == ("letters", "folder:lab/letters")


def test_an_import_that_fails_leaves_no_data_set_and_says_why(client, working, capfd):
    path = working / "bad.zip"
    path.write_bytes(zipped({"../1.png": b"x"}))
    assert run(["import", str(path)]) == 1
    assert "leaves the data set's folder" in capfd.readouterr().err
    assert list(client.datasets.list()) == []
    assert run(["import", str(working / "nothing"), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == "INVALID_REQUEST"
    assert list(client.datasets.list()) == []


def test_a_model_that_looks_for_duplicates_is_named(client, platform, tmp_path, capfd):  # noqa: F811
    model = client.models.create("clip", ModelRef("ViT-B-32", "laion2b_s34b_b79k"))
    folder = fill(tmp_path / "letters")
    for source in (str(folder), "folder:lab/letters"):
        asked = ["import", source, "--name", source[-20:], "--model", model.id, "--no-wait", "--json"]
        assert run(asked) == 0
        assert json.loads(capfd.readouterr().out)["job"]["spec"]["model_id"] == model.id
    assert run(["import", str(folder), "--model", "mdl_none", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == "UNKNOWN_MODEL"
    assert len(list(client.datasets.list())) == 2


def test_who_does_not_wait_gets_the_ids(client, platform, tmp_path, capfd):  # noqa: F811
    folder = fill(tmp_path / "letters")
    assert run(["import", str(folder), "--name", "mine", "--no-wait", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["job"]["state"], found["report"]) == ("queued", None)
    (dataset,) = client.datasets.list()
    assert (dataset.name, dataset.state) == ("mine", "empty")
