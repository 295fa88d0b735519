"""An import in real processes, killed at each of its stages: the data set is whole or not there."""

import pytest
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import tarred, zipped
from tests.worker.test_importing import as_it_is, new_dataset
from tests.worker.test_processes import processes  # noqa: F401

from fulcrum.domain.jobs import ImportDataset


def files(first=0):
    return {f"{'ab'[i % 2]}/{i:03d}.png": encoded(picture(first + i)) for i in range(32)}


@pytest.fixture
def undisturbed(workshop):
    """What an import gives that nobody interrupts. Of another container, so that no part of it is known before."""
    record = new_dataset(workshop)
    sha256 = workshop.artifacts.put_bytes(zipped(files()))
    job = workshop.run(workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", seed=5)))
    assert job.state == "succeeded", job.error
    return as_it_is(workshop, record)


@pytest.mark.parametrize("stage", ["8", "reduce", "written"])
def test_a_worker_killed_in_the_middle_of_an_import_changes_nothing_of_its_result(
    processes,  # noqa: F811
    workshop,
    undisturbed,
    stage,
):
    record = new_dataset(workshop)
    sha256 = workshop.artifacts.put_bytes(tarred(files()))
    worker = processes.start()
    job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", seed=5))
    begun = processes.folder / "scratch" / "cache" / "begun"
    processes.until(lambda: begun.exists() and stage in processes.begun())
    if stage != "written":
        assert as_it_is(workshop, record) == record
    processes.kill(worker)
    processes.redis.kill()
    processes.redis.start()
    processes.start()
    ended = processes.until_ended(job, 90)
    assert ended.state == "succeeded", ended.error
    made = as_it_is(workshop, record)
    assert (made.digest, made.n_by_split, made.size_bytes) == (
        undisturbed.digest,
        undisturbed.n_by_split,
        undisturbed.size_bytes,
    )
    with workshop.store.read() as tx:
        (version,) = tx.dataset_versions.list(workshop.project.id, dataset_id=record.id).items
    assert (version.digest, version.manifest_sha256) == (made.digest, made.manifest_sha256)
    # Of four parts and one end at most the one in hand was begun twice.
    assert len([b for b in processes.begun() if b.isdecimal()]) <= 5
    processes.until(lambda: not (processes.folder / "scratch" / "jobs" / job.id).exists())


def test_an_import_that_was_cancelled_stays_so_over_a_restart(processes, workshop):  # noqa: F811
    record = new_dataset(workshop)
    sha256 = workshop.artifacts.put_bytes(tarred(files(40)))
    worker = processes.start()
    job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}"))
    processes.until(lambda: workshop.job(job).n_shards_done >= 1)
    with workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
    assert processes.until_ended(job).state == "cancelled"
    processes.kill(worker)
    processes.start()
    other = workshop.submit(ImportDataset(new_dataset(workshop).id, f"artifact:{sha256}"))
    assert processes.until_ended(other, 90).state == "succeeded"
    assert workshop.job(job).state == "cancelled"
    assert as_it_is(workshop, record) == record
