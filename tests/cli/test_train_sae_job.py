"""`fulcrum jobs train-sae` against a running gateway, with a worker in this process."""

import json

import pytest
from tests.cli.test_import import client, run  # noqa: F401
from tests.client.conftest import no_gateway_of_the_developer  # noqa: F401
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
from tests.worker.workshop import QUICK, stored_dataset

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, served_model
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ModelRecord
from fulcrum.worker.handlers.registry import HANDLERS
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

SHAPE = ["--d-sae", "64", "--k", "4", "--n-tokens", "6000", "--batch-size", "512"]


@pytest.fixture
def lab(platform, tmp_path):  # noqa: F811
    """A model and a data set; the data set's name."""
    path = write_demo_dataset(tmp_path / "world", n_pairs=6, n_right=2, n_neutral=2, n_cues=2)
    dataset = stored_dataset(
        load_dataset(path), platform.artifacts, platform.project.id, platform.admin_user.id
    )
    model = ModelRecord(
        new_id("mdl"), platform.project.id, "clip", served_model(), platform.admin_user.id, now(), "ready"
    )
    with platform.store.write() as tx:
        tx.datasets.add(dataset)
        tx.models.add(model)
    return dataset.name


def work(platform, tmp_path):  # noqa: F811
    machine = Machine(platform.store, platform.artifacts, tmp_path / "s", folders={FOLDER_NAME: WEIGHTS})
    Runner(machine, HANDLERS, terms=QUICK).run_until_idle()


def test_an_sae_is_trained_on_the_platform(client, lab, platform, tmp_path, capfd):  # noqa: F811
    asked = ["jobs", "train-sae", "mine", "-d", lab, *SHAPE]
    assert run([*asked, "--no-wait"]) == 0
    job = capfd.readouterr().out.strip()
    assert client.jobs.get(job).job.state == "queued"
    work(platform, tmp_path)
    assert run([*asked, "--model", "clip"]) == 0  # the same question is the same job
    said = capfd.readouterr().out
    (sae,) = client.saes.list()
    assert (sae.job_id, sae.name) == (job, "mine")
    assert f"mine {sae.id}" in said
    assert f"fvu {sae.info.quality['fvu']:.4f}, untrained twin" in said
    assert run([*asked, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["result"]["sae_id"] == sae.id


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "other"], "UNKNOWN_MODEL"),
        (["-d", "other"], "UNKNOWN_DATASET"),
        (["--variant", "other"], "INVALID_SAE_CONFIG"),
        (["--k", "65"], "INVALID_SAE_CONFIG"),
        (["--split", "other"], "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_asked_is_said(client, lab, options, reason, capfd):  # noqa: F811
    assert run(["jobs", "train-sae", "mine", "-d", lab, *SHAPE, *options, "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == reason
