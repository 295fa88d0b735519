"""Everything of a platform killed at the same moment, in the middle of a job."""

import json
from contextlib import suppress

import psutil
import pytest
from tests.cli.test_up import Up, folder, gone, until  # noqa: F401  # a fixture among them
from tests.worker.workshop import Workshop

from fulcrum.client import Client, ModelRef
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.world_dataset import MANIFEST, write_demo_dataset
from fulcrum.domain.jobs import IndexDataset
from fulcrum.engine.local import LocalEngine
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import migrate, open_store


@pytest.fixture
def undisturbed(tmp_path):
    """The files of the world's index, made in this process."""
    world = load_dataset(write_demo_dataset(tmp_path / "world", n_pairs=90, n_right=5, n_neutral=5, n_cues=5))
    url = f"sqlite:///{tmp_path / 'alone.sqlite'}"
    migrate(url)
    with open_store(url) as store, open_artifacts(f"file://{tmp_path / 'alone'}") as artifacts:
        shop = Workshop(store, artifacts, tmp_path / "scratch", LocalEngine)
        job = shop.run(shop.submit(IndexDataset(shop.add_dataset(world).id, shop.add_demo_sae().id)))
        assert job.state == "succeeded", job.error
        with store.read() as tx:
            return tx.indexes.list(project_id=shop.project.id).items[0].files


def client_of(up):
    return Client(up.url, up.token, timeout_s=120)


def test_a_job_survives_the_death_of_everything_and_ends_with_the_same_bytes(folder, undisturbed):  # noqa: F811
    import torch

    variables = {
        "FULCRUM_WORKER_FOLDERS": json.dumps({"world": str(folder / "world")}),
        "FULCRUM_WORKER_LEASE_S": "3",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    up = Up(folder, **variables)
    with client_of(up) as client:
        model = client.models.wait(client.models.create("demo", ModelRef("folder:demo/clip")))
        sae = client.saes.wait(client.saes.create("demo", model, "folder:demo/sae"))
        dataset = client.datasets.create("world")
        imported = client.jobs.wait(client.datasets.import_images(dataset, f"folder:world/{MANIFEST}"))
        assert imported.state == "succeeded", imported.error
        job = client.latents.index(dataset, sae)
        until(lambda: client.jobs.get(job).job.n_shards_done >= 1)
        family = [*up.family(), psutil.Process(up.process.pid)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # it ended with its parent
                process.kill()
    up.process.wait(30)
    up.process.stdout.close()
    until(lambda: gone(family))

    again = Up(folder, **variables)
    with client_of(again) as client:
        job = client.jobs.wait(job, timeout_s=180)
        assert job.state == "succeeded", job.error
        assert 1 <= job.n_shards_done == job.n_shards
        (index,) = client.latents.indexes(dataset=dataset)
        assert client.jobs.get(imported).job.state == "succeeded"
    assert again.end(2) == 0
    assert index.files == undisturbed
