"""A training in real processes: killed in the middle, it comes to the bits of one that was left alone."""

import pytest
from tests.worker.test_processes import Processes

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.jobs import TrainSae

# On a busy machine a worker that trains may not come to say so for a second or two.
LEASE_S = 5.0


@pytest.fixture
def processes(workshop, store_url, tmp_path):
    processes = Processes(workshop, store_url, tmp_path)
    yield processes
    processes.close()


def test_a_training_that_was_killed_ends_with_the_bits_of_one_that_was_not(processes, tmp_path):
    workshop = processes.workshop
    n_pairs = {"discover": 30, "select": 10, "confirm": 20}
    world = load_dataset(write_demo_dataset(tmp_path / "world", n_pairs=n_pairs, seed=5))
    dataset, model = workshop.add_dataset(world), workshop.add_demo_model()
    shape = {"d_sae": 512, "k": 8, "n_tokens": 100_000, "batch_size": 512}

    def submit(name):
        job = workshop.submit(TrainSae(dataset.id, model.id, name, **shape))
        processes.queue.wake("gpu")
        return job

    def sae(job):
        assert job.state == "succeeded", job.error
        with workshop.store.read() as tx:
            return tx.saes.get(job.result["sae_id"])

    def steps(job):
        return [m["step"] for m in workshop.metrics(job)]

    worker = processes.start(lease_s=LEASE_S)
    alone = sae(processes.until_ended(submit("alone"), seconds=240))
    weights = alone.source.split(":")[2]
    workshop.artifacts.delete(weights)  # so that it is not answered from the store

    job = submit("killed")
    checkpoints = workshop.folder / "jobs" / job.id
    processes.until(lambda: any(checkpoints.glob("*/training.safetensors")) and steps(job), seconds=120)
    processes.kill(worker)
    seen = len(steps(job))
    assert steps(job)[-1] < 100_000 // 512, "it was over before it was killed"
    assert workshop.job(job).state == "running"
    processes.start(lease_s=LEASE_S)
    job = processes.until_ended(job, seconds=240)
    killed = sae(job)
    # A step may be told twice, but not from the first one on: it went on from a checkpoint.
    assert steps(job)[seen] > 1
    assert steps(job).count(steps(job)[0]) == 1
    assert killed.source == alone.source
    assert killed.info.quality == alone.info.quality
    told = {}
    for point in workshop.metrics(job):
        values = {k: v for k, v in point.items() if k not in ("tokens_per_s", "eta_s")}
        assert told.setdefault(point["step"], values) == values
