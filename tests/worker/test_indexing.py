"""`index_dataset` and `describe_concepts` as jobs, on the demo model and a small demo world."""

import numpy as np
import pytest

from fulcrum.datasets.description import ConceptDescription
from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.index.opening import open_linked_index
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.errors import ServiceUnavailable, UnknownDataset
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import DescribeConcepts, IndexDataset
from fulcrum.domain.records import ConceptRecord, DatasetRecord
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.worker.handlers.describe_concepts import DescribeConceptsHandler
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.indexes import open_runs

SMALL = {"discover": 40, "select": 16, "confirm": 24}
WORDS = ("a dog", "a cat", "a car", "a tree", "text", "red", "a house")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return load_dataset(write_demo_dataset(folder, n_pairs=SMALL, n_right=6, n_neutral=4, n_cues=2, seed=5))


class Lab:
    """A workshop whose handlers take their data sets from the test's memory."""

    def __init__(self, workshop, dataset):
        self.workshop, self.data = workshop, dataset
        self.sae = workshop.add_demo_sae()
        self.datasets = {}
        self.dataset = self.add(dataset, "small")
        self.handlers = {
            "index_dataset": IndexDatasetHandler(self.open),
            "describe_concepts": DescribeConceptsHandler(self.open),
        }

    def add(self, dataset, name):
        shop = self.workshop
        record = DatasetRecord(
            new_id("dat"),
            shop.project.id,
            name,
            shop.user.id,
            now(),
            "",
            "ready",
            dataset.digest,
            len(dataset),
        )
        self.datasets[record.id] = dataset
        with shop.store.write() as tx:
            return tx.datasets.add(record)

    def open(self, work, dataset_id):
        if dataset_id not in self.datasets:
            raise UnknownDataset(f"no data set with the id {dataset_id!r}")
        return self.datasets[dataset_id]

    def index(self, dataset=None, **fields):
        spec = IndexDataset((dataset or self.dataset).id, self.sae.id, **fields)
        return self.workshop.run(self.workshop.submit(spec), self.handlers)

    def record(self, job):
        with self.workshop.store.read() as tx:
            return tx.indexes.get(job.result["index_id"])

    def opened(self, job):
        record = self.record(job)
        cache = self.workshop.folder / "cache" / "indexes"
        return open_linked_index(record.files, self.workshop.artifacts.local_path, cache, record.key)


@pytest.fixture
def lab(workshop, small_world):
    return Lab(workshop, small_world)


def steerable_of(lab):
    machine = lab.workshop.machine
    return machine.engine.residency.steerable(*machine.sae(lab.workshop.project.id, lab.sae.id))


def test_a_job_makes_the_index_that_a_run_on_one_machine_makes(lab, small_world, tmp_path):
    job = lab.index()
    assert job.state == "succeeded", job.error
    assert (job.n_shards, job.n_shards_reused) == (2, 0)
    local = open_or_build_index(steerable_of(lab), small_world, tmp_path)
    ours = lab.opened(job)
    everyone = np.arange(len(small_world))
    for name in ("offsets", "latents", "values"):
        mine, theirs = getattr(ours.images(everyone), name), getattr(local.images(everyone), name)
        assert np.array_equal(mine, theirs), name
    assert np.array_equal(ours.embeddings(), local.embeddings())
    assert np.array_equal(ours.statistics.histogram, local.statistics.histogram)
    assert job.result["n_images"] == len(small_world)
    assert job.result["bytes_per_image"]["total"] > 0


def test_the_same_question_and_a_data_set_that_grew_compute_only_what_is_new(lab, small_world):
    part = lab.add(small_world.subset(range(128 + 9)), "before")
    first = lab.index(part)
    assert (first.n_shards, first.n_shards_reused) == (2, 0)
    grown = lab.index()
    assert (grown.n_shards, grown.n_shards_reused) == (2, 1)
    again = lab.index()
    assert (again.n_shards, again.n_shards_reused) == (2, 2)
    assert again.result == grown.result
    assert lab.record(grown).files["shard-000000.arrays"] == lab.record(first).files["shard-000000.arrays"]


def test_an_index_that_was_interrupted_goes_on_to_the_same_bytes(lab, monkeypatch):
    undisturbed = lab.record(lab.index()).files
    handler, calls = lab.handlers["index_dataset"], []
    run_shard = handler.run_shard

    def failing(work, shard):
        calls.append(shard.key)
        if len(calls) == 1:
            raise ServiceUnavailable("the machine is gone", 0.0)
        return run_shard(work, shard)

    monkeypatch.setattr(handler, "run_shard", failing)
    for sha256 in undisturbed.values():
        lab.workshop.artifacts.delete(sha256)  # so that nothing is reused
    job = lab.index()
    assert job.state == "succeeded", job.error
    assert len(calls) == 3
    assert lab.record(job).files == undisturbed


def test_kept_activations_lie_in_the_index(lab):
    tower = steerable_of(lab).tower
    size = tower.n_tokens * tower.d_in * 4
    job = lab.index(keep_activations_bytes=5 * size)
    assert job.state == "succeeded", job.error
    assert job.result["n_activations"] == 5
    index = lab.opened(job)
    assert index.activations(4).shape == (tower.n_tokens, tower.d_in)
    assert index.activations(5) is None


def test_a_validation_opens_the_index_of_the_data_set(lab, small_world):
    lab.index()
    seen = {}
    open_run = open_runs(lab.open)

    class Looking(DescribeConceptsHandler):
        def plan(self, work):
            run = open_run(work, lab.dataset.id, lab.sae.id, None)
            seen["logits"], seen["names"] = run.base_logits, run.task.names
            return super().plan(work)

    job = lab.workshop.submit(DescribeConcepts(lab.sae.id, lab.dataset.id, WORDS))
    lab.workshop.run(job, {"describe_concepts": Looking(lab.open)})
    assert seen["logits"].shape == (len(small_world), len(small_world.class_names))
    assert seen["names"] == small_world.class_names


def test_describing_needs_an_index_and_says_so(lab):
    job = lab.workshop.run(lab.workshop.submit(DescribeConcepts(lab.sae.id, lab.dataset.id)), lab.handlers)
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_INDEX")
    assert "index it first" in job.error


def test_described_latents_have_labels_beside_those_of_people(lab):
    shop = lab.workshop
    index = shop.submit(IndexDataset(lab.dataset.id, lab.sae.id))
    spec = DescribeConcepts(lab.sae.id, lab.dataset.id, WORDS, n_top_images=6)
    waiting = shop.submit(spec, after=(index.id,))
    shop.runner(lab.handlers).run_until_idle()
    job = shop.job(waiting)
    assert job.state == "succeeded", job.error
    with shop.store.read() as tx:
        record = tx.descriptions.newest(lab.sae.id)
        labels = tx.concepts.of_latents(lab.sae.id)
    assert record.id == job.result["description_id"]
    described = ConceptDescription.open(shop.artifacts.local_path(record.sha256))
    assert len(labels) == job.result["n_labels_written"] == described.has_embedding.sum() > 0
    latent = next(iter(labels))
    assert labels[latent].label == described.label(described.row(latent))
    mine = ConceptRecord(
        new_id("con"), shop.project.id, lab.sae.id, latent, shop.user.id, now(), label="my word"
    )
    with shop.store.write() as tx:
        tx.concepts.put(mine)
    again = shop.run(shop.submit(DescribeConcepts(lab.sae.id, lab.dataset.id, WORDS[::-1], 6)), lab.handlers)
    assert again.state == "succeeded", again.error
    with shop.store.read() as tx:
        assert tx.concepts.by_latent(lab.sae.id, latent).label == "my word"
    same = shop.run(shop.submit(spec), lab.handlers)
    assert (same.n_shards_reused, same.result["description_id"]) == (1, record.id)


def test_a_data_set_that_is_gone_ends_the_job_with_words(lab):
    lab.datasets.clear()
    job = lab.index()
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_DATASET")
