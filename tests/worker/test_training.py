"""`train_sae` as a job, on the demo model and a small demo world stored as an import leaves it."""

import dataclasses
import json
import threading
import time

import numpy as np
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.jobs import TrainSae
from fulcrum.domain.records import SaeRecord
from fulcrum.engine.sae_training import MAX_JUDGED, divide, header_of
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.train_sae import TrainSaeHandler
from fulcrum.worker.held import Held, Stopping, Terms

SMALL = {"discover": 40, "select": 16, "confirm": 24}
SHAPE = {"d_sae": 96, "k": 8, "n_tokens": 40_000, "batch_size": 512}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return load_dataset(write_demo_dataset(folder, n_pairs=SMALL, n_right=6, n_neutral=4, n_cues=2, seed=5))


class Lab:
    """A workshop with a data set and a model, and a training that writes checkpoints all the time."""

    def __init__(self, workshop, dataset):
        self.workshop, self.data = workshop, dataset
        self.model, self.dataset = workshop.add_demo_model(), workshop.add_dataset(dataset)
        self.handlers = {"train_sae": TrainSaeHandler(dataset_opener(), checkpoint_every_s=0.0)}

    def spec(self, name="mine", **fields):
        return TrainSae(self.dataset.id, self.model.id, name, **SHAPE | fields)

    def train(self, name="mine", **fields):
        return self.workshop.run(self.workshop.submit(self.spec(name, **fields)), self.handlers)

    def saes(self):
        with self.workshop.store.read() as tx:
            return {s.name: s for s in tx.saes.list(self.workshop.project.id).items}

    def steps(self, job):
        return [m["step"] for m in self.workshop.metrics(job)]


@pytest.fixture
def lab(workshop, small_world):
    return Lab(workshop, small_world)


def test_a_checkpoint_on_the_way_makes_earlier_attempts_count_no_more(lab, monkeypatch):
    kept = []
    monkeypatch.setattr(Held, "kept", lambda held: kept.append(held.job.kind))
    job = lab.train()
    # After every step but the last, which is no checkpoint on the way.
    assert kept == ["train_sae"] * (job.result["n_tokens"] // SHAPE["batch_size"] - 1)


def test_a_training_ends_as_an_sae_of_the_project_that_can_be_loaded(lab, tmp_path):
    job = lab.train()
    assert job.state == "succeeded", job.error
    record = lab.saes()["mine"]
    assert (record.id, record.state, record.job_id) == (job.result["sae_id"], "ready", job.id)
    model, place = lab.workshop.machine.sae(lab.workshop.project.id, record.id)
    loaded = lab.workshop.machine.engine.residency.steerable(model, place).sae_info
    assert dataclasses.replace(loaded, name="mine") == record.info
    assert (loaded.d_sae, str(loaded.hook_point)) == (96, "visual.blocks.3.resid_post")
    card = record.info.quality
    assert card["fvu"] < 0.7 * card["untrained_fvu"]
    assert card["ce_recovered"] > card["untrained_ce_recovered"]
    assert card["top1_agreement"] > card["untrained_top1_agreement"]
    assert card == job.result["quality"]
    assert job.result["held_out"]
    n = len(lab.data)
    assert (job.result["n_images"], job.result["n_judged"]) == (n - n // 10, n // 10)
    assert not (lab.workshop.folder / "jobs" / job.id).exists()


def test_the_curves_are_told_while_it_trains_and_kept_with_the_weights(lab):
    job = lab.train()
    points = lab.workshop.metrics(job)
    assert lab.steps(job) == sorted({*lab.steps(job)})
    assert points[-1]["step"] == 40_000 // 512
    assert {"loss", "fvu", "l0", "dead_share", "learning_rate", "tokens_per_s"} <= set(points[0])
    assert points[-1]["loss"] < points[0]["loss"]
    asked = [p for p in points if "ce_recovered" in p]
    assert 10 <= len(asked) <= 40
    assert {"ce_recovered", "top1_agreement", "probe_fvu"} <= set(asked[-1])
    assert asked[-1]["ce_recovered"] > asked[0]["ce_recovered"]
    weights = lab.saes()["mine"].source.split(":")[2]
    header = header_of(lab.workshop.artifacts.local_path(weights))
    kept = [{k: v for k, v in p.items() if k not in ("tokens_per_s", "eta_s")} for p in points]
    assert header["curves"] == json.loads(json.dumps(kept))
    assert job.progress.what in ("training", "judging")


def test_the_same_training_under_another_name_runs_no_step(lab):
    first, second = lab.train("one"), lab.train("two")
    assert (second.state, second.n_shards_reused) == ("succeeded", 1)
    assert lab.steps(second) == []
    assert first.result["weights_sha256"] == second.result["weights_sha256"]
    assert set(lab.saes()) == {"one", "two"}
    other = lab.train("three", seed=1)
    assert (other.n_shards_reused, other.result["weights_sha256"] == first.result["weights_sha256"]) == (
        0,
        False,
    )


def test_a_worker_that_stops_leaves_a_checkpoint_and_another_goes_on_to_the_same_bytes(lab):
    undisturbed = lab.train("undisturbed")
    lab.workshop.artifacts.delete(lab.saes()["undisturbed"].source.split(":")[2])
    job = lab.workshop.submit(lab.spec("disturbed"))
    # Checkpoints only when it has to stop: those of each step would show nothing.
    handlers = {"train_sae": TrainSaeHandler(dataset_opener(), checkpoint_every_s=3600)}
    stopping = Stopping()
    terms = Terms(lease_s=30.0, beat_s=0.02, drain_s=0.0)
    runner = lab.workshop.runner(handlers, terms=terms, stopping=stopping)
    worker = threading.Thread(target=runner.run_until_idle)
    worker.start()
    until(lambda: len(lab.steps(job)) >= 5)
    stopping.ask()
    worker.join(20)
    before = lab.steps(job)
    assert before[-1] < 40_000 // 512, "the training was over before it was disturbed"
    assert lab.workshop.job(job).state == "running"
    job = lab.workshop.run(job, handlers)
    assert job.state == "succeeded", job.error
    assert lab.steps(job)[len(before)] > before[-1], "it began anew"
    result = {**job.result, "sae_id": "", "name": ""}
    assert result == {**undisturbed.result, "sae_id": "", "name": ""}
    sources = {lab.saes()[name].source for name in ("undisturbed", "disturbed")}
    assert len(sources) == 1


def test_a_checkpoint_that_cannot_be_read_is_not_the_end(lab):
    job = lab.workshop.submit(lab.spec())
    runner = lab.workshop.runner(lab.handlers)
    runner.run(runner._claim(("gpu",)))
    task = runner._claim(("gpu",))
    folder = lab.workshop.machine.folder_of(job.id) / task.key[:16]
    folder.mkdir()
    (folder / "training.safetensors").write_bytes(b"half of")
    runner.run(task)
    job = lab.workshop.run(job, lab.handlers)
    assert job.state == "succeeded", job.error
    assert any("begins anew" in line for line in lab.workshop.log(job))


def test_a_cancelled_training_ends_within_seconds_and_leaves_nothing(lab):
    job = lab.workshop.submit(lab.spec(n_tokens=50_000_000))
    worker = threading.Thread(target=lab.workshop.runner(lab.handlers).run_until_idle)
    worker.start()
    until(lambda: len(lab.steps(job)) >= 3)
    progress = lab.workshop.job(job).progress
    assert (progress.what, progress.unit, progress.total) == ("training", "tokens", 50_000_000 // 512 * 512)
    with lab.workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
    asked = time.monotonic()
    worker.join(20)
    assert time.monotonic() - asked < 5
    assert lab.workshop.job(job).state == "cancelled"
    assert lab.saes() == {}
    assert not (lab.workshop.folder / "jobs" / job.id).exists()


def test_a_training_that_is_flat_ends_early(lab):
    whole, early = lab.train("whole"), lab.train("early", early_stop=True, learning_rate=1e-7)
    assert early.state == "succeeded", early.error
    assert early.result["stopped_early"]
    assert early.result["n_tokens"] < whole.result["n_tokens"] == 40_000 // 512 * 512
    assert not whole.result["stopped_early"]


@pytest.mark.parametrize("variant", ["relu", "batch_topk", "jumprelu", "gated", "matryoshka"])
def test_every_variant_becomes_an_sae(lab, variant):
    job = lab.train(variant=variant, n_tokens=10_000)
    assert job.state == "succeeded", job.error
    assert lab.saes()["mine"].info.variant == variant


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"hook_point": "visual.blocks.99.resid_post"}, "INVALID_HOOK_POINT", "99"),
        ({"hook_point": "nowhere"}, "INVALID_HOOK_POINT", "nowhere"),
        ({"hook_point": "text.blocks.0.resid_post"}, "INVALID_HOOK_POINT", "text tower"),
        ({"d_sae": 0}, "INVALID_SAE_CONFIG", "d_sae"),
        ({"k": 97}, "INVALID_SAE_CONFIG", "k=97"),
        ({"n_tokens": 100}, "INVALID_SAE_CONFIG", "n_tokens=100"),
        ({"batch_size": 0}, "INVALID_SAE_CONFIG", "batch_size"),
        ({"learning_rate": -1.0}, "INVALID_SAE_CONFIG", "learning_rate"),
        ({"sparsity": 0.1}, "INVALID_SAE_CONFIG", "sparsity=0.1"),
        ({"batch_size": 1 << 20, "n_tokens": 1 << 21}, "INVALID_DATASET", "less than one batch"),
        ({"split": "nothing"}, "INVALID_DATASET", "nothing"),
        ({"d_sae": 1 << 27, "k": 1}, "OUT_OF_MEMORY", "GiB"),
        ({"dataset_id": "dat_none"}, "UNKNOWN_DATASET", "dat_none"),
        ({"model_id": "mdl_none"}, "UNKNOWN_MODEL", "mdl_none"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(lab, fields, reason, words):
    spec = dataclasses.replace(lab.spec(), **fields)
    job = lab.workshop.submit(spec)
    runner = lab.workshop.runner(lab.handlers)
    runner.run(runner._claim(("gpu",)))
    found = lab.workshop.job(job)
    if reason == "OUT_OF_MEMORY":  # other work may end: it is tried again
        assert any(line.startswith(reason) and words in line for line in lab.workshop.log(job))
        return
    assert found.state == "failed"
    assert found.error.startswith(f"{reason}: ")
    assert words in found.error
    assert lab.workshop.metrics(job) == []
    assert lab.saes() == {}


def test_a_data_set_that_is_deleted_while_it_trains_ends_the_job_with_words(lab):
    job = lab.workshop.submit(lab.spec())
    runner = lab.workshop.runner(lab.handlers)
    for _ in ("plan", "shard"):
        runner.run(runner._claim(("gpu",)))
    with lab.workshop.store.write() as tx:
        tx.datasets.delete(lab.dataset.id)
    job = lab.workshop.run(job, lab.handlers)
    assert (job.state, job.error.split(":")[0]) == ("failed", "UNKNOWN_DATASET")
    assert lab.saes() == {}


def test_a_name_that_was_taken_meanwhile_costs_no_training(lab):
    job = lab.workshop.submit(lab.spec())
    other = lab.workshop.add_demo_sae(lab.model)
    with lab.workshop.store.write() as tx:
        tx.saes.update(other.id, name="mine")
    job = lab.workshop.run(job, lab.handlers)
    assert job.result["name"] == "mine (2)"
    assert isinstance(lab.saes()["mine (2)"], SaeRecord)
    assert any("was taken meanwhile" in line for line in lab.workshop.log(job))


def test_a_split_trains_and_the_others_judge(lab):
    job = lab.train(split="discover")
    assert job.state == "succeeded", job.error
    assert job.result["n_images"] == len(lab.data.numbers(split="discover"))
    assert job.result["n_judged"] == min(MAX_JUDGED, len(lab.data) - job.result["n_images"])


def test_images_without_labels_are_trained_on_and_judged_without_cross_entropy(lab):
    bare = [dataclasses.replace(s, label=None) for s in lab.data.samples]
    lab.dataset = lab.workshop.add_dataset(lab.data.with_samples(bare))
    job = lab.train()
    assert job.state == "succeeded", job.error
    assert "fvu" in job.result["quality"]
    assert "ce_recovered" not in job.result["quality"]
    assert all("ce_recovered" not in p for p in lab.workshop.metrics(job))


def test_no_pair_has_a_twin_on_the_other_side(small_world):
    for seed in range(5):
        division = divide(small_world, None, seed)
        assert set(division.trained_on) | set(division.judged) == set(range(len(small_world)))
        pairs = small_world.pair_ids
        common = set(pairs[division.trained_on]) & set(pairs[division.judged]) - {""}
        assert common == set()
        assert 0 < len(division.judged) <= len(small_world) // 10
    assert not np.array_equal(divide(small_world, None, 0).judged, divide(small_world, None, 1).judged)


def test_so_few_images_that_none_can_be_held_out_judge_themselves(small_world):
    division = divide(small_world.subset(range(9)), None, 0)
    assert (len(division.trained_on), len(division.judged), division.held_out) == (9, 9, False)


def until(true, seconds=30.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)
