"""Training over HTTP and in the SDK: asked for, done by a worker, explained with at once."""

import numpy as np
import pytest
from tests.gateway.resources.conftest import picture
from tests.worker.workshop import QUICK, stored_dataset

from fulcrum.client import Client
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_task
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.worker.handlers.registry import HANDLERS
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

SHAPE = {"d_sae": 96, "k": 8, "n_tokens": 20_000, "batch_size": 512}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    n_pairs = {"discover": 40, "select": 10, "confirm": 20}
    return load_dataset(
        write_demo_dataset(
            tmp_path_factory.mktemp("world"), n_pairs=n_pairs, n_right=4, n_neutral=4, n_cues=2
        )
    )


@pytest.fixture
def dataset(lab, world):
    platform = lab.platform
    record = stored_dataset(world, platform.artifacts, platform.project.id, platform.admin_user.id)
    with platform.store.write() as tx:
        return tx.datasets.add(record)


@pytest.fixture
def client(lab):
    with Client(lab.platform.url, lab.platform.token_of(lab.platform.admin_user)) as client:
        yield client


def work(platform, folder):
    machine = Machine(platform.store, platform.artifacts, folder, folders={FOLDER_NAME: WEIGHTS})
    Runner(machine, HANDLERS, terms=QUICK).run_until_idle()


def test_an_sae_is_asked_for_trained_and_explained_with(lab, client, dataset, tmp_path):
    asked = {"split": "discover", **SHAPE}
    job = client.saes.train("mine", lab.model["id"], dataset, **asked)
    assert job.state == "queued"
    assert client.saes.train("mine", lab.model["id"], dataset, **asked).id == job.id
    work(lab.platform, tmp_path / "scratch")
    job = client.jobs.wait(job)
    assert job.state == "succeeded", job.error
    sae = client.saes.get(job.result["sae_id"])
    assert (sae.name, sae.state, sae.job_id) == ("mine", "ready", job.id)
    assert sae.info.quality["fvu"] < sae.info.quality["untrained_fvu"]
    points = [e.content for e in client.jobs.metrics(sae.job_id)]
    assert points[-1]["tokens"] == 20_000 // 512 * 512
    assert points[-1]["ce_recovered"] <= 1.0
    why = client.explain(picture(), demo_task(), sae=sae)
    assert why.latents
    assert all(found.latent < 96 for found in why.latents)
    assert np.isfinite(why.latents[0].score)
    assert client.saes.train("mine", lab.model["id"], dataset, **asked).id == job.id


def test_an_sae_that_was_deleted_is_trained_again(lab, client, dataset, tmp_path):
    first = client.saes.train("mine", lab.model["id"], dataset, **SHAPE)
    work(lab.platform, tmp_path / "scratch")
    client.saes.delete(client.saes.get(client.jobs.wait(first).result["sae_id"]))
    again = client.saes.train("mine", lab.model["id"], dataset, **SHAPE)
    assert again.id != first.id
    work(lab.platform, tmp_path / "scratch")
    again = client.jobs.wait(again)
    assert (again.state, again.n_shards_reused) == ("succeeded", 1)
    assert client.saes.get(again.result["sae_id"]).name == "mine"


@pytest.mark.parametrize(
    ("changes", "status", "reason", "words"),
    [
        ({"d_sae": 0}, 422, "INVALID_REQUEST", "d_sae"),
        ({"d_sae": 1 << 30}, 422, "INVALID_REQUEST", "d_sae"),
        ({"k": 97}, 422, "INVALID_SAE_CONFIG", "1 .. d_sae=96"),
        ({"variant": "transcoder"}, 422, "INVALID_REQUEST", "variant"),
        ({"n_tokens": 511}, 422, "INVALID_SAE_CONFIG", "at least one batch of 512"),
        ({"learning_rate": 0}, 422, "INVALID_REQUEST", "learning_rate"),
        ({"learning_rate": "nan"}, 422, "INVALID_REQUEST", "learning_rate"),
        ({"sparsity": 1.0}, 422, "INVALID_SAE_CONFIG", "k says how sparse"),
        (
            {"hook_point": "visual.blocks.99.resid_post"},
            422,
            "INVALID_HOOK_POINT",
            "visual.blocks.3.resid_post",
        ),
        ({"hook_point": "text.blocks.0.resid_post"}, 422, "INVALID_HOOK_POINT", "hook point of the images"),
        ({"hook_point": "somewhere"}, 422, "INVALID_REQUEST", "hook_point"),
        ({"batch_size": 1 << 16, "n_tokens": 1 << 17}, 422, "INVALID_DATASET", "less than one batch"),
        ({"dataset_id": "dat_none"}, 404, "UNKNOWN_DATASET", "dat_none"),
        ({"name": "demo"}, 409, "ALREADY_EXISTS", "demo"),
        ({"surprise": 1}, 422, "INVALID_REQUEST", "surprise"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(lab, dataset, changes, status, reason, words):
    body = {"dataset_id": dataset.id, "name": "mine", **SHAPE} | changes
    answer = lab.client.post(f"/v1/models/{lab.model['id']}:train-sae", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert words in answer.text
    assert lab.client.get("/v1/jobs").json()["items"] == []


def test_a_split_without_images_and_an_empty_data_set_are_refused(lab, dataset):
    where = f"/v1/models/{lab.model['id']}:train-sae"
    with lab.platform.store.write() as tx:
        tx.datasets.update(dataset.id, n_by_split={"discover": 10})
    body = {"dataset_id": dataset.id, "name": "mine", "split": "confirm"}
    assert lab.client.post(where, json=body).json()["reason"] == "INVALID_DATASET"
    empty = lab.client.post("/v1/datasets", json={"name": "empty"}).json()
    answer = lab.client.post(where, json={"dataset_id": empty["id"], "name": "mine"}).json()
    assert (answer["reason"], "import its images first" in answer["detail"]) == ("INVALID_DATASET", True)


def test_analysts_train_and_viewers_and_strangers_do_not(lab, dataset):
    where = f"/v1/models/{lab.model['id']}:train-sae"
    body = {"dataset_id": dataset.id, "name": "mine", **SHAPE}
    assert lab.platform.as_user("Vic", "viewer").post(where, json=body).json()["reason"] == "FORBIDDEN"
    assert lab.platform.as_user("Eve").post(where, json=body).json()["reason"] == "UNKNOWN_MODEL"
    assert lab.platform.as_user("Ann", "analyst").post(where, json=body).status_code == 202
