"""`train_sae` by two processes that a worker starts (gloo on CPU): the SAE of one, and nothing stays behind."""

import contextlib
import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors import safe_open
from tests.worker.ranks import killed, pretended
from tests.worker.test_processes import ROOT
from tests.worker.test_training import SMALL, until
from tests.worker.workshop import QUICK, Workshop

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.jobs import TrainSae
from fulcrum.engine.sae_training import header_of
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import open_store
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers import train_sae
from fulcrum.worker.handlers.train_sae import TrainSaeHandler
from fulcrum.worker.held import Draining, Stopping
from fulcrum.worker.machine import Machine
from fulcrum.worker.ranks.lines import line_of
from fulcrum.worker.ranks.together import TrainingProcesses

N_STEPS = 400  # enough for a fast machine to be stopped before the last
# Slow enough to learn that the last bit of a sum, which several processes add up otherwise, is not blown up.
SHAPE = {"d_sae": 96, "k": 8, "n_tokens": N_STEPS * 512, "batch_size": 512, "learning_rate": 4e-4}
NOTHING_TO_WAIT_FOR = replace(QUICK, beat_s=0.02, drain_s=0.0)


class Lab:
    """A workshop with a data set and a model, and workers that train by two processes."""

    def __init__(self, workshop, world, artifacts_folder):
        self.workshop = workshop
        self.artifacts_url = f"file://{artifacts_folder}"
        self.model, self.dataset = workshop.add_demo_model(), workshop.add_dataset(world)

    def two(self, *script):
        """With a script, they only pretend to train."""
        processes = TrainingProcesses(2, self.artifacts_url, self.workshop.folder / "copies")
        if script:
            processes = replace(processes, program=(sys.executable, pretended.__file__, *script))
        return Machine(
            self.workshop.store,
            self.workshop.artifacts,
            self.workshop.folder,
            folders={FOLDER_NAME: WEIGHTS},
            make_engine=self.workshop.make_engine,
            activations_bytes=10**9,
            training_processes=processes,
        )

    def submit(self, name):
        return self.workshop.submit(TrainSae(self.dataset.id, self.model.id, name, **SHAPE))

    def runner(self, machine=None, **options):
        # Checkpoints only when a worker has to stop: those of each step would show nothing.
        handlers = {"train_sae": TrainSaeHandler(dataset_opener(), checkpoint_every_s=3600.0)}
        return self.workshop.runner(handlers, machine=machine or self.workshop.machine, **options)

    def start(self, machine, **options):
        worker = threading.Thread(target=self.runner(machine, **options).run_until_idle)
        worker.start()
        return worker

    def run(self, job, machine=None):
        self.runner(machine).run_until_idle()
        job = self.workshop.job(job)
        assert job.state == "succeeded", job.error
        with self.workshop.store.read() as tx:
            record = tx.saes.get(job.result["sae_id"])
        weights = record.source.split(":")[2]
        trained = Trained(job, record, header_of(self.workshop.artifacts.local_path(weights))["curves"])
        self.workshop.artifacts.delete(weights)  # so that the same question is not answered from the store
        return trained

    def steps(self, job):
        return [m["step"] for m in self.workshop.metrics(job)]


@dataclass
class Trained:
    job: Any
    record: Any
    curves: Any


@dataclass
class Disturbed:
    trained: Trained
    steps: Any  # that the job was told of
    n_killed: int  # steps of the attempt whose worker was killed
    left: Any  # processes that outlived it
    stopped: Any  # folder of the checkpoint that the attempt left which had to stop


@pytest.fixture(autouse=True, scope="module")
def found_by_processes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT / 'services'}:{ROOT}")
        yield


@pytest.fixture(scope="module")
def lab(migrated_store, local_engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    world = write_demo_dataset(folder / "world", n_pairs=SMALL, n_right=6, n_neutral=4, n_cues=2, seed=5)
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{shutil.copy(migrated_store, folder / 'store.sqlite')}"
        store = stack.enter_context(open_store(url))
        artifacts = stack.enter_context(open_artifacts(f"file://{folder / 'artifacts'}"))
        workshop = Workshop(store, artifacts, folder / "scratch", lambda: local_engine)
        yield Lab(workshop, load_dataset(world), folder / "artifacts")


@pytest.fixture(scope="module")
def alone(lab):
    return lab.run(lab.submit("alone"))


@pytest.fixture(scope="module")
def disturbed(lab, alone, tmp_path_factory):
    """One job: its first worker is killed, the second one has to stop, the third one ends it."""
    job = lab.submit("disturbed")
    n_killed, left = train_and_be_killed(lab, job, tmp_path_factory.mktemp("killed"))
    stopping = Stopping()
    worker = lab.start(lab.two(), stopping=stopping, terms=NOTHING_TO_WAIT_FOR)
    until(lambda: len(lab.steps(job)) >= 3, 120)
    stopping.ask()
    worker.join(30)
    assert lab.workshop.job(job).state == "running"
    assert ranks() == []
    (folder,) = (lab.workshop.folder / "jobs" / job.id).iterdir()  # and nothing else is left
    stopped = shutil.copytree(folder, tmp_path_factory.mktemp("stopped") / folder.name)
    trained = lab.run(job, lab.two())
    assert ranks() == []
    return Disturbed(trained, lab.steps(job), n_killed, left, stopped)


def train_and_be_killed(lab, job, folder):
    """Steps of the checkpoint that a killed worker has left, and processes that outlived it."""
    asked, stopping = [], Stopping()

    def only_ask(questions, watching, program):
        asked.extend(questions)
        stopping.ask()
        raise Draining

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_sae, "train_together", only_ask)
        lab.runner(lab.two(), stopping=stopping).run_until_idle()
    changed = [replace(q, meeting=str(folder), checkpoint_every_s=0.0) for q in asked]
    (folder / "questions").write_bytes(b"".join(line_of(q) for q in changed))
    worker = psutil.Popen([sys.executable, killed.__file__, str(folder / "questions")])
    checkpoint = Path(asked[0].checkpoints)
    until(lambda: steps_of(checkpoint) >= 10, 120)
    started = worker.children()
    assert len(started) == 2
    worker.kill()
    worker.wait(10)
    _, left = psutil.wait_procs(started, timeout=5)
    return steps_of(checkpoint), left


def steps_of(folder):
    """Of the checkpoint in it."""
    path = folder / "training.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["numbers"])["step"]


def ranks():
    return children("fulcrum.worker.ranks")


def children(word):
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # gone in between
            if word in process.cmdline():
                found.append(process)
    return found


def assert_same_curves(some, others):
    assert [p["step"] for p in some.curves] == [p["step"] for p in others.curves]
    for name in ("fvu", "l0", "loss", "cosine", "ce_recovered", "top1_agreement"):
        one, two = ([p[name] for p in t.curves if name in p] for t in (some, others))
        np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-3, err_msg=name)
    for name, value in some.record.info.quality.items():
        assert value == pytest.approx(others.record.info.quality[name], rel=2e-3, abs=2e-3), name


def test_processes_end_with_their_worker_however_that_ends(disturbed):
    assert disturbed.n_killed >= 10
    assert disturbed.left == []


def test_two_processes_draw_the_curve_of_one_though_they_were_killed_and_stopped(lab, alone, disturbed):
    assert disturbed.trained.record.info.weights_sha256 != alone.record.info.weights_sha256, "one trained"
    assert_same_curves(disturbed.trained, alone)
    assert lab.workshop.log(disturbed.trained.job).count("2 of 2 processes train") == 3
    assert not any("processes" in line for line in lab.workshop.log(alone.job))


def test_each_went_on_where_the_one_before_had_to_end(disturbed):
    n_stopped = steps_of(disturbed.stopped)
    assert disturbed.n_killed < n_stopped < N_STEPS
    # Nobody told the job of the first; of the others each step was told once.
    told = [p["step"] for p in disturbed.trained.curves if p["step"] > disturbed.n_killed]
    assert disturbed.steps == told


def test_one_process_goes_on_where_two_were_stopped(lab, alone, disturbed):
    job = lab.submit("changed")
    runner = lab.runner()
    runner.run(runner._claim(("gpu",)))  # the plan
    shutil.copytree(disturbed.stopped, lab.workshop.machine.folder_of(job.id) / disturbed.stopped.name)
    changed = lab.run(job)
    assert lab.steps(job)[0] > steps_of(disturbed.stopped)
    assert_same_curves(changed, alone)


def test_both_keep_their_activations_on_disk(lab, disturbed):
    (folder,) = (lab.workshop.machine.cache / "activations").iterdir()
    sums = np.fromfile(folder / "sums.bin", np.uint64)
    result = disturbed.trained.job.result
    assert np.count_nonzero(sums) == result["n_images"] == len(sums) - result["n_judged"]


def test_a_cancelled_training_leaves_nothing(lab):
    job = lab.submit("cancelled")
    worker = lab.start(lab.two("step:1 point:0.5 wait:60|wait:60"))
    until(lambda: lab.workshop.metrics(job))
    started = children(pretended.__file__)  # those of other tests live on
    assert len(started) == 2
    with lab.workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
    asked = time.monotonic()
    worker.join(20)
    assert time.monotonic() - asked < 5
    assert not any(p.is_running() for p in started)
    assert lab.workshop.job(job).state == "cancelled"
    assert not (lab.workshop.folder / "jobs" / job.id).exists()


def test_what_one_of_them_cannot_read_ends_the_job_with_its_words(lab):
    job = lab.submit("broken")
    lab.runner(lab.two("step:1 wait:60|raise:UnreadableImage")).run_until_idle()
    job = lab.workshop.job(job)
    assert (job.state, job.error) == ("failed", "UNREADABLE_IMAGE: rank 1 says so")


def test_a_killed_process_is_told_and_the_training_tried_again(lab):
    job = lab.submit("lost")
    lab.runner(lab.two("step:1 wait:60|kill")).run_until_idle()  # nothing is due for some seconds
    (line,) = (text for text in lab.workshop.log(job) if "was killed" in text)
    assert "process 2 of 2 of the training was killed (signal 9)" in line
    assert "tried again" in line
    assert lab.workshop.job(job).state == "running"
    with lab.workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
