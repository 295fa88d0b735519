"""Uploads and imports where the disk of the artifacts is truly full."""

import subprocess

import pytest
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import tarred

from fulcrum.client import Client
from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.gateway.settings import Settings
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.job_tasks import TASKS
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Runner

SIZE = 1 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A megabyte in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("making a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def artifacts(small_disk):
    return open_artifacts(f"file://{small_disk}")


@pytest.fixture
def gateway_settings(store, artifacts, small_disk, empty_redis, tmp_path):
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=f"file://{small_disk}",
        redis_url=empty_redis,
        inference_address=f"unix:{tmp_path / 'nobody.sock'}",
    )


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user), retries=0) as opened:
        yield opened


def test_an_archive_that_does_not_fit_is_refused_and_one_that_does_waits_for_room(
    client, platform, small_disk, tmp_path
):
    dataset = client.datasets.create("letters")
    path = tmp_path / "a.tar"
    path.write_bytes(tarred({f"a/{i}.png": encoded(picture(i, (400, 300))) for i in range(20)}))
    assert path.stat().st_size > SIZE
    with pytest.raises(ServiceUnavailable, match="the disk of the artifacts is full"):
        client.datasets.upload(dataset, path)
    assert [p for p in small_disk.rglob("*") if p.is_file()] == []
    assert list(client.jobs.list()) == []

    # Half of the disk for the archive, more than the rest for its images.
    path.write_bytes(tarred({f"a/{i}.png": encoded(picture(i, (200, 150))) for i in range(26)}))
    assert SIZE / 2 < path.stat().st_size < SIZE * 0.95
    job = client.datasets.upload(dataset, path)
    machine = Machine(platform.store, platform.artifacts, tmp_path / "scratch")
    runner = Runner(machine, {"import_dataset": ImportDatasetHandler()})
    runner.run_until_idle()
    assert client.jobs.get(job).job.state == "running"
    assert any("the disk of the artifacts is full" in e.content["text"] for e in client.jobs.log(job))
    assert client.datasets.get(dataset) == dataset

    subprocess.run(["mount", "-o", f"remount,size={8 * SIZE}", str(small_disk)], check=True)
    with platform.store.write() as tx:
        tx.job_tasks._write(TASKS.update().values(not_before=None))
    runner.run_until_idle()
    assert client.jobs.wait(job).state == "succeeded"
    assert client.datasets.get(dataset).n_images == 26
