"""What failed imports kept goes when nobody names it, and nothing of an import that goes on or succeeds."""

import threading
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import tarred, zipped
from tests.worker.test_importing import new_dataset
from tests.worker.test_importing_archives import Silent, images, stored_of

from fulcrum.domain.errors import InvalidDataset
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset
from fulcrum.domain.records import ImageRecord
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.columns import Base
from fulcrum.store.jobs import JobRow
from fulcrum.worker.handlers import import_dataset as handler_module
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.import_leftovers import remove_leftovers
from fulcrum.worker.reconciler import Reconciler

DAYS = timedelta(days=2)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(handler_module, "IMAGES_PER_PART", 8)


class Failing(ImportDatasetHandler):
    """Fails after some images were kept: in the third part, of which nothing else is known, or at the end."""

    at_the_end = False

    def run_shard(self, work, shard):
        found = super().run_shard(work, shard)
        if shard.content["first"] == 16 and not self.at_the_end:
            raise InvalidDataset("a meteorite")
        return found

    def reduce(self, work, results):
        if self.at_the_end:
            raise InvalidDataset("a late meteorite")
        return super().reduce(work, results)


class FailingAtTheEnd(Failing):
    at_the_end = True


def asked(workshop, archive, **fields):
    record = new_dataset(workshop)
    source = f"artifact:{workshop.artifacts.put_bytes(archive)}"
    return record, workshop.submit(ImportDataset(record.id, source, **fields))


def imported(workshop, archive, handler=None):
    record, job = asked(workshop, archive)
    return record, workshop.run(job, None if handler is None else {"import_dataset": handler})


def long_ago(workshop, job):
    """As if the job had been made and ended days ago."""
    with workshop.store.write() as tx:
        c = JobRow.__table__.c
        past = {"finished_at": now() - 2 * DAYS, "created_at": now() - 2 * DAYS}
        tx.jobs._write(JobRow.__table__.update().where(c.id == job.id).values(**past))


def look(workshop):
    """Dooms, and then removes what was doomed before: the slack is over."""
    removed, _ = remove_leftovers(workshop.store, workshop.artifacts, DAYS, timedelta(0))
    return removed + remove_leftovers(workshop.store, workshop.artifacts, DAYS, timedelta(0))[0]


def files(workshop):
    """Hashes of all artifacts."""
    return {p.name for p in Path(workshop.artifacts._root).rglob("*") if p.is_file() and len(p.name) == 64}


def sha256_of(content):
    return sha256(content).hexdigest()


def is_whole(workshop, record):
    dataset = stored_of(workshop, record).dataset
    return all(dataset.read_bytes(s) for s in dataset.samples)


@pytest.mark.parametrize("handler", [Failing(), FailingAtTheEnd()])
def test_what_a_failed_import_kept_is_removed_after_the_time_and_not_before(workshop, handler):
    archive = zipped(images(24))
    before = files(workshop) | {workshop.artifacts.put_bytes(archive)}
    _, job = imported(workshop, archive, handler)
    assert job.state == "failed"
    kept = files(workshop) - before
    assert len(kept) >= 24
    assert look(workshop) == 0
    assert files(workshop) - before == kept
    long_ago(workshop, job)
    reconciler = Reconciler(workshop.machine, Silent(), ["cpu"], timedelta(days=30), DAYS)
    reconciler.look()
    # Doomed, but whoever began to import them a moment ago has not written it down yet.
    assert kept <= files(workshop)
    assert look(workshop) == len(kept)
    assert files(workshop) & kept == set()
    assert look(workshop) == 0


def test_a_cancelled_import_leaves_nothing_either(workshop):
    class Cancelled(ImportDatasetHandler):
        def run_shard(self, work, shard):
            found = super().run_shard(work, shard)
            with work.store.write() as tx:
                tx.jobs.cancel(work.job.id)
            return found

    archive = zipped(images(24))
    before = files(workshop) | {workshop.artifacts.put_bytes(archive)}
    _, job = imported(workshop, archive, Cancelled())
    assert job.state == "cancelled"
    long_ago(workshop, job)
    assert look(workshop) >= 8
    assert files(workshop) <= before


def test_what_a_data_set_or_an_uploaded_image_names_stays(workshop):
    whole, job = imported(workshop, zipped(images(12)))
    assert job.state == "succeeded"
    _, failed = imported(workshop, zipped(images(24)), FailingAtTheEnd())
    uploaded = encoded(picture(20))
    named = workshop.artifacts.put_bytes(uploaded)
    record = ImageRecord(
        new_id("img"), workshop.project.id, named, "image/png", len(uploaded), 48, 40, "x.png",
        workshop.user.id, now(),
    )  # fmt: skip
    with workshop.store.write() as tx:
        tx.images.add(record)
        tx.images.delete(record.id, None)
    long_ago(workshop, failed)
    assert look(workshop) > 0
    assert is_whole(workshop, whole)
    assert workshop.artifacts.exists(named)
    gone = sha256_of(encoded(picture(21)))
    assert not workshop.artifacts.exists(gone)


def test_the_same_images_are_imported_anew_after_they_were_removed(workshop):
    archive = zipped(images(24))
    record, failed = imported(workshop, archive, FailingAtTheEnd())
    long_ago(workshop, failed)
    assert look(workshop) > 0
    # The results of the parts were forgotten with the images, for another import and for the same one.
    other, job = imported(workshop, archive)
    assert (job.state, job.n_shards_reused) == ("succeeded", 0)
    assert is_whole(workshop, other)
    with workshop.store.write() as tx:
        tx.jobs.retry(failed.id)
    again = workshop.run(failed)
    assert (again.state, again.n_shards, again.n_shards_done) == ("succeeded", 3, 3), again.error
    assert is_whole(workshop, record)


def test_a_failed_import_that_is_tried_again_meanwhile_keeps_what_it_has(workshop):
    archive = zipped(images(24))
    record, failed = imported(workshop, archive, FailingAtTheEnd())
    long_ago(workshop, failed)
    with workshop.store.write() as tx:
        tx.jobs.retry(failed.id)
    assert look(workshop) == 0
    assert workshop.run(failed).state == "succeeded"
    assert is_whole(workshop, record)


@pytest.mark.parametrize("when", ["before it was doomed", "after it was doomed"])
def test_an_import_of_the_same_bytes_that_runs_meanwhile_loses_nothing(workshop, when):
    _, failed = imported(workshop, zipped(images(24)), FailingAtTheEnd())
    long_ago(workshop, failed)
    # The same images in another container for one, the same archive (whose parts are known) for the other.
    make = tarred if when == "before it was doomed" else zipped
    if when == "after it was doomed":
        remove_leftovers(workshop.store, workshop.artifacts, DAYS)
    record, job = asked(workshop, make(images(24)))
    looked = []

    class Watched(ImportDatasetHandler):
        def run_shard(self, work, shard):
            looked.append(look(workshop))
            found = super().run_shard(work, shard)
            looked.append(look(workshop))
            return found

        def reduce(self, work, results):
            looked.append(look(workshop))
            return super().reduce(work, results)

    ended = workshop.run(job, {"import_dataset": Watched()})
    assert ended.state == "succeeded", ended.error
    look(workshop)
    assert is_whole(workshop, record)
    assert len(looked) == 7
    if when == "before it was doomed":
        assert sum(looked) == 0


def test_a_part_that_is_made_again_is_not_removed_with_what_a_failed_import_left_of_it(workshop):
    archive = zipped(images(24))
    _, failed = imported(workshop, archive, FailingAtTheEnd())
    long_ago(workshop, failed)
    remove_leftovers(workshop.store, workshop.artifacts, DAYS)  # doomed, and not looked at again until now
    record, job = asked(workshop, archive)
    removed = []

    class Watched(ImportDatasetHandler):
        def reduce(self, work, results):
            removed.append(
                look(workshop)
            )  # all parts are made and stored, byte by byte as the failed import's
            return super().reduce(work, results)

    ended = workshop.run(job, {"import_dataset": Watched()})
    assert ended.state == "succeeded", ended.error
    assert removed == [0]
    assert is_whole(workshop, record)


def test_parts_that_an_unfinished_import_has_taken_over_keep_their_images(workshop):
    archive = zipped(images(24))
    _, failed = imported(workshop, archive, FailingAtTheEnd())
    record, job = asked(workshop, archive)
    taken = workshop.runner()._claim(["cpu"])
    workshop.runner().run(taken)  # the plan, which finds all parts in the store
    assert workshop.job(job).n_shards_reused == 3
    long_ago(workshop, failed)
    assert look(workshop) == 0
    assert workshop.run(job).state == "succeeded"
    look(workshop)
    assert is_whole(workshop, record)


def test_imports_that_fail_and_succeed_beside_each_other_while_others_remove(workshop):
    """Threads, as processes are: no order of what they do loses an image of an import that succeeded."""
    stop, errors = threading.Event(), []

    def remove():
        while not stop.is_set():
            try:
                remove_leftovers(workshop.store, workshop.artifacts, timedelta(0), timedelta(0))
            except Exception as error:  # told by the test
                errors.append(error)

    removing = threading.Thread(target=remove)
    removing.start()
    whole = []
    try:
        for turn in range(4):
            imported(
                workshop, (zipped, tarred)[turn % 2](images(24)), (Failing(), FailingAtTheEnd())[turn % 2]
            )
            record, job = imported(workshop, tarred(images(20, first=turn)))
            assert job.state == "succeeded", job.error
            whole.append(record)
    finally:
        stop.set()
        removing.join()
    assert errors == []
    look(workshop)
    assert all(is_whole(workshop, record) for record in whole)


def test_whatever_names_a_content_was_thought_of():
    """A new column with a hash: is it of an image, a mask or a part of an import? See remove_leftovers."""
    named_in_manifests = {"datasets.manifest_sha256", "dataset_versions.manifest_sha256"}
    asked_about = {
        "images.sha256",
        "import_contents.sha256",
        "job_tasks.result_sha256",
        "shard_results.sha256",
    }
    made_otherwise = {  # reports, tables and hashes of weights or words, which no import keeps
        "datasets.report_sha256", "dataset_versions.report_sha256", "correction_versions.sha256",
        "evaluations.correction_sha256", "evaluations.model_sha256", "evaluations.sae_sha256",
        "evaluations.specification_sha256", "evaluations.report_sha256", "evaluations.columns_sha256",
        "evaluations.parquet_sha256", "looks.correction_sha256", "indexes.model_sha256", "indexes.sae_sha256",
        "descriptions.sha256", "experts.model_sha256", "experts.sae_sha256", "experts.sha256",
        "experts.concept_set_sha256", "image_sets.sha256",
    }  # fmt: skip
    there = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if "sha256" in column.name
    }
    assert there == named_in_manifests | asked_about | made_otherwise


def test_an_image_that_was_there_when_an_import_looked_is_there_when_it_has_ended(workshop):
    """The worst moment to remove it: right after the import was told that it need not keep it."""

    class RemovedAtOnce(Artifacts):
        n_found = 0

        def exists(self, sha256):
            found = super().exists(sha256)
            RemovedAtOnce.n_found += found
            remove_leftovers(workshop.store, workshop.artifacts, DAYS, timedelta(0))
            return found

    _, failed = imported(workshop, zipped(images(24)), FailingAtTheEnd())
    long_ago(workshop, failed)
    remove_leftovers(workshop.store, workshop.artifacts, DAYS)  # dooms
    record, job = asked(workshop, tarred(images(24)))
    machine = workshop.new_machine()
    machine.artifacts = RemovedAtOnce.__new__(RemovedAtOnce)
    machine.artifacts.__dict__ = workshop.artifacts.__dict__
    workshop.runner(machine=machine).run_until_idle()
    assert workshop.job(job).state == "succeeded", workshop.job(job).error
    assert (
        RemovedAtOnce.n_found >= 8
    )  # of the first part at least: the others were still doomed, and are kept anew
    look(workshop)
    assert is_whole(workshop, record)
