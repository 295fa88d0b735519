"""`import_dataset` as a job, and what stands on it, with the handlers of the product."""

import json

import pytest
from tests.datasets.images import put_picture

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset, IndexDataset
from fulcrum.domain.records import DatasetRecord
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.machine import Machine


@pytest.fixture
def lab(tmp_path):
    """The folder that the administrator allowed."""
    folder = tmp_path / "lab"
    for i in range(40):
        put_picture(folder / "letters" / "ab"[i % 2] / f"{i:02d}.png", seed=i)
    return folder


@pytest.fixture
def importing(workshop, lab):
    machine = Machine(
        workshop.store,
        workshop.artifacts,
        workshop.folder,
        folders={FOLDER_NAME: WEIGHTS, "lab": lab},
        make_engine=workshop.make_engine,
    )

    def run(spec):
        job = workshop.submit(spec)
        workshop.runner(machine=machine).run_until_idle()
        return workshop.job(job)

    return run


def new_dataset(workshop, **fields):
    record = DatasetRecord(
        new_id("dat"), workshop.project.id, new_id("name"), workshop.user.id, now(), **fields
    )
    with workshop.store.write() as tx:
        return tx.datasets.add(record)


def as_it_is(workshop, record):
    with workshop.store.read() as tx:
        return tx.datasets.get(record.id)


def test_a_folder_becomes_a_data_set_that_can_be_indexed_without_the_folder(workshop, importing, lab):
    record = new_dataset(workshop)
    job = importing(ImportDataset(record.id, "folder:lab/letters", seed=3))
    assert job.state == "succeeded", job.error
    ready = as_it_is(workshop, record)
    assert (ready.state, ready.n_images, ready.class_names) == ("ready", 40, ("a", "b"))
    assert ready.n_by_split == job.result["n_by_split"]
    assert sum(ready.n_by_split.values()) == 40
    assert set(ready.n_by_split) == {"discover", "select", "confirm"}
    original = load_dataset(lab / "letters")
    for file in lab.rglob("*.png"):
        file.unlink()
    work = type("W", (), {"job": job, "store": workshop.store, "artifacts": workshop.artifacts})()
    stored = dataset_opener()(work, record.id)
    assert stored.digest == ready.digest
    assert [s.id for s in stored.samples] == [s.id for s in original.samples]
    sae = workshop.add_demo_sae()
    indexed = importing(IndexDataset(record.id, sae.id))
    assert indexed.state == "succeeded", indexed.error


def test_splits_that_are_given_stay_and_importing_twice_gives_the_same_digest(workshop, importing, lab):
    rows = [
        f"n{i},letters/{'ab'[i % 2]}/{i:02d}.png,{'ab'[i % 2]},{['discover', 'confirm'][i // 20]}"
        for i in range(40)
    ]
    (lab / "manifest.csv").write_text("\n".join(["id,source,label,split", *rows]) + "\n")
    record = new_dataset(workshop)
    first = importing(ImportDataset(record.id, "folder:lab/manifest.csv"))
    assert first.state == "succeeded", first.error
    assert first.result["splits"] == "given"
    assert as_it_is(workshop, record).n_by_split == {"discover": 20, "confirm": 20}
    assert as_it_is(workshop, record).digest == load_dataset(lab / "manifest.csv").digest
    again = importing(ImportDataset(record.id, "folder:lab/manifest.csv"))
    assert again.result["digest"] == first.result["digest"]


def test_a_few_damaged_images_are_left_out_and_named(workshop, importing, lab):
    (lab / "letters" / "a" / "00.png").write_bytes(b"no image")
    record = new_dataset(workshop)
    job = importing(ImportDataset(record.id, "folder:lab/letters"))
    assert job.state == "succeeded", job.error
    assert (job.result["n_images"], job.result["n_left_out"]) == (39, 1)
    assert "00.png" in job.result["left_out"][0]
    assert any("left out" in line for line in workshop.log(job))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("folder:lab/nothing", "UNKNOWN_DATASET"),
        ("folder:other/letters", "UNKNOWN_DATASET"),
        ("folder:lab/../secrets", "UNKNOWN_DATASET"),
        ("/etc", "UNKNOWN_DATASET"),
        ("folder:lab/empty", "INVALID_DATASET"),
    ],
)
def test_a_source_that_cannot_be_imported_leaves_the_data_set_as_it_was(
    workshop, importing, lab, source, reason
):
    (lab / "empty").mkdir()
    record = new_dataset(workshop)
    job = importing(ImportDataset(record.id, source))
    assert job.state == "failed"
    assert job.error.startswith(reason)
    assert str(lab) not in json.dumps(job.error)
    assert as_it_is(workshop, record) == record


def test_too_many_damaged_images_and_strange_labels_are_refused(workshop, importing, lab):
    strict = new_dataset(workshop, class_names=("a", "c"))
    refused = importing(ImportDataset(strict.id, "folder:lab/letters"))
    assert "labels ['b'] are not among the class names" in refused.error
    for i in range(3):
        (lab / "letters" / "a" / f"{2 * i:02d}.png").write_bytes(b"no image")
    record = new_dataset(workshop)
    job = importing(ImportDataset(record.id, "folder:lab/letters"))
    assert "3 of 40 images cannot be used" in job.error
    assert as_it_is(workshop, record) == record


def test_a_data_set_that_was_deleted_ends_the_job_with_words(workshop, importing):
    record = new_dataset(workshop)
    with workshop.store.write() as tx:
        tx.datasets.delete(record.id)
    job = importing(ImportDataset(record.id, "folder:lab/letters"))
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_DATASET")


def test_a_data_set_without_images_cannot_be_indexed(workshop, importing):
    record = new_dataset(workshop)
    job = importing(IndexDataset(record.id, workshop.add_demo_sae().id))
    assert job.state == "failed"
    assert "import images into it first" in job.error
