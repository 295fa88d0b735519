"""`fulcrum evaluations` against a running gateway, with a worker in this process."""

import json
import threading
import time

import pytest
from tests.cli.test_import import client, run  # noqa: F401
from tests.cli.test_train_sae_job import work
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
from tests.worker.workshop import stored_dataset

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import demo_model, demo_sae, demo_task, served_model, served_sae
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.edits import Scale
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ModelRecord, SaeRecord


@pytest.fixture
def lab(platform, client, local_engine, tmp_path):  # noqa: F811
    """Ids of a data set and of two corrections."""
    path = write_demo_dataset(tmp_path / "world", n_pairs=8, n_right=2, n_neutral=2, n_cues=2)
    p, u = platform.project.id, platform.admin_user.id
    dataset = stored_dataset(load_dataset(path), platform.artifacts, p, u)
    model = ModelRecord(new_id("mdl"), p, "clip", served_model(), u, now(), "ready")
    sae = SaeRecord(new_id("sae"), p, "sae", model.id, served_sae(), u, now(), "ready")
    with platform.store.write() as tx:
        tx.datasets.add(dataset)
        tx.models.add(model)
        tx.saes.add(sae)
    ids = []
    for latent, gain in ((3, 0.0), (9, 4.0)):
        content = local_engine.correction(demo_model(), demo_sae(), [Scale(latent, gain)], task=demo_task())
        ids.append(client.corrections.create(f"latent {latent}", content, sae=sae).id)
    return dataset.id, ids


def test_interactions_are_asked_for_by_ids_and_shown_as_a_matrix(
    client,  # noqa: F811
    lab,
    platform,  # noqa: F811
    tmp_path,
    capfd,
):
    dataset, (one, other) = lab
    asked = ["evaluations", "interactions", one, f"{other}@1", "-d", dataset, "--split", "discover"]
    assert run([*asked, "--no-wait"]) == 0
    job = client.jobs.get(capfd.readouterr().out.strip()).job
    assert (job.kind, job.state, job.spec.split) == ("interact_corrections", "queued", "discover")
    assert [(c.correction_id, c.number) for c in job.spec.corrections] == [(one, 1), (other, 1)]
    work(platform, tmp_path)
    assert run([*asked, "--json"]) == 0  # the same question is the same job
    found = json.loads(capfd.readouterr().out)
    assert (found["id"], found["state"]) == (job.id, "succeeded")
    (row,) = found["result"]["interactions"]
    assert {row["first"], row["second"]} == {f"{one}@1", f"{other}@1"}
    assert run(asked) == 0
    said = capfd.readouterr().out
    assert f"{row['n']} images of discover" in said
    assert "interaction" in said
    assert f"{row['interaction']:+.2%}" in said


def test_what_cannot_be_asked_is_said(client, lab, capfd):  # noqa: F811
    dataset, (one, other) = lab

    def reason(*arguments):
        assert run(["evaluations", *arguments, "--json"]) == 2
        error = json.loads(capfd.readouterr().out)["error"]
        return error["reason"], error["message"]

    about = ["interactions", one, other, "-d", dataset]
    assert reason("interactions", one, "-d", dataset)[0] == "INVALID_REQUEST"
    assert "cor_...@3" in reason("interactions", one, f"{other}@x", "-d", dataset)[1]
    assert "column=value" in reason(*about, "--where", "label")[1]
    assert "twice" in reason(*about, "-w", "label=key", "-w", "label=cup")[1]
    assert reason(*about, "--split", "confirm")[0] == "INVALID_REQUEST"
    assert reason("recompute", "evl_none")[0] == "UNKNOWN_EVALUATION"
    assert reason("compare", "evl_none", "evl_none")[0] == "UNKNOWN_EVALUATION"
    assert list(client.jobs.list()) == []


def test_an_evaluation_is_listed_recomputed_and_compared(client, lab, platform, tmp_path, capfd):  # noqa: F811
    dataset, (one, other) = lab
    first = client.evaluations.validate(one, dataset, n_controls=0)
    second = client.evaluations.validate(other, dataset, n_controls=0)
    work(platform, tmp_path)
    ids = [client.jobs.get(job).job.result["evaluation_id"] for job in (first, second)]

    assert run(["evaluations", "list", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)["evaluations"]
    assert {e["id"] for e in listed} == set(ids)
    assert run(["evaluations", "list", "-c", one, "-d", dataset]) == 0
    (line,) = capfd.readouterr().out.strip().splitlines()
    assert line.startswith(f"{ids[0]}  validation select   {one}@1")

    assert run(["evaluations", "recompute", ids[0], "--no-wait"]) == 0
    again = client.jobs.get(capfd.readouterr().out.strip()).job
    assert (again.state, again.spec.fresh) == ("queued", True)
    work(platform, tmp_path)
    assert run(["evaluations", "recompute", ids[0], "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["job"]["id"] == again.id
    assert found["comparison"]["then_id"] == ids[0]
    assert found["comparison"]["now_id"] == found["job"]["result"]["evaluation_id"] != ids[0]
    assert (found["comparison"]["n_base_differs"], found["comparison"]["n_corrected_differs"]) == (0, 0)

    assert run(["evaluations", "compare", *ids, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [c["part"] for c in found["changes"]] == ["correction_sha256"]
    assert run(["evaluations", "compare", *ids]) == 0
    said = capfd.readouterr().out
    assert "correction_sha256" in said
    assert f"{found['n_images']} images in both: 0 with another answer of the model" in " ".join(said.split())
    assert run(["evaluations", "compare", ids[0], ids[0]]) == 0
    assert "every number, every gate and the verdict are the same" in capfd.readouterr().out


def test_a_job_that_fails_ends_with_one(client, lab, platform, tmp_path, capfd):  # noqa: F811
    dataset, (one, other) = lab

    def fail():
        while not list(client.jobs.list(kind="interact_corrections")):
            time.sleep(0.05)
        with platform.store.write() as tx:
            tx.datasets.delete(dataset)
        work(platform, tmp_path)

    thread = threading.Thread(target=fail)
    thread.start()
    assert run(["evaluations", "interactions", one, other, "-d", dataset]) == 1
    thread.join()
    (job,) = client.jobs.list(kind="interact_corrections")
    assert job.state == "failed"
    assert "".join(job.error.split()) in "".join(capfd.readouterr().out.split())
