"""Notes of what imports keep: of who notes and who removes, the later one sees what the earlier one did."""

import threading
from datetime import timedelta

import pytest

from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset, JobRecord, Shard

HOUR = timedelta(hours=1)
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def new_import(store, world):
    """`new_import(age, state)`: one that was made, and ended, so long ago."""

    def make(age=timedelta(0), state="running"):
        spec = ImportDataset(world.dataset.id, "folder:lab")
        job = JobRecord(new_id("job"), world.project.id, spec.kind, spec, world.user.id, now() - age, "cpu")
        with store.write() as tx:
            tx.jobs.add(job)
            if state != "running":
                tx.jobs.set(job.id, state=state, finished_at=now() - age)
        return job.id

    return make


def doomed(store, keep=HOUR):
    n = 0
    with store.read() as tx:
        left = tx.import_contents.left_by(now() - keep)
    for job_id in left:
        with store.write() as tx:
            n += tx.import_contents.doom(job_id, now() - keep, now())
    return n


def taken(store, hashes, slack=timedelta(0)):
    with store.write() as tx:
        return tx.import_contents.take(hashes, now() - slack, slack)


def test_only_what_imports_left_that_failed_long_ago_is_doomed_and_taken_once(store, new_import):
    old, young = new_import(2 * HOUR, "failed"), new_import(HOUR / 2, "cancelled")
    done = new_import(2 * HOUR, "succeeded")
    with store.write() as tx:
        tx.import_contents.note(old, [B, A, A])
        tx.import_contents.note(young, [C])
        tx.import_contents.note(done, ["d" * 64])
    assert doomed(store) == 2
    assert doomed(store) == 0
    with store.read() as tx:
        assert tx.import_contents.due(now(), timedelta(0), 10) == [A, B]
        assert tx.import_contents.due(now(), timedelta(0), 1) == [A]
        assert tx.import_contents.due(now() - HOUR, timedelta(0), 10) == []
    assert taken(store, [A, B, C, "d" * 64], HOUR) == set()
    assert taken(store, [A, C]) == {A}
    assert taken(store, [A, B, C]) == {B}


def test_what_is_noted_or_released_again_is_not_taken(store, new_import):
    failed = new_import(2 * HOUR, "failed")
    with store.write() as tx:
        tx.import_contents.note(failed, [A, B, C])
    doomed(store)
    another = new_import()
    with store.write() as tx:
        tx.import_contents.note(another, [A])
        tx.import_contents.release([B])
    assert taken(store, [A, B, C]) == {C}
    with store.write() as tx:
        tx.import_contents.release_job(another)
    assert taken(store, [A, B, C]) == set()


def test_nothing_is_taken_while_an_import_is_unfinished_that_began_before(store, new_import):
    failed, running = new_import(2 * HOUR, "failed"), new_import(HOUR)
    with store.write() as tx:
        tx.import_contents.note(running, [A])
        tx.import_contents.note(failed, [A, B])  # the last one who noted it; the other one relies on it
    assert doomed(store) == 2
    assert taken(store, [A, B]) == set()
    with store.write() as tx:
        tx.jobs.set(running, state="succeeded", finished_at=now())
    assert taken(store, [A, B]) == {B}  # not what the other one noted
    with store.write() as tx:
        tx.import_contents.release_job(running)  # its manifest names it now
    assert taken(store, [A, B]) == {A}


def test_what_a_later_import_left_is_kept_for_an_earlier_one_that_failed_and_may_be_tried_again(
    store, new_import
):
    earlier, later = new_import(HOUR / 2, "failed"), new_import(2 * HOUR, "failed")
    with store.write() as tx:
        tx.import_contents.note(earlier, [A])
        tx.import_contents.note(later, [A, B])
    assert doomed(store) == 2  # of the one that failed long ago
    with store.read() as tx:
        assert tx.import_contents.due(now(), timedelta(0), 10) == [B]
    assert taken(store, [A, B]) == {B}
    assert doomed(store, HOUR / 4) == 1
    assert taken(store, [A, B]) == {A}


def test_an_import_that_was_tried_again_meanwhile_is_not_doomed(store, new_import):
    failed = new_import(2 * HOUR, "failed")
    with store.write() as tx:
        tx.import_contents.note(failed, [A])
        assert tx.import_contents.left_by(now() - HOUR) == [failed]
        tx.jobs.set(failed, finished_at=now())  # it failed once more, just now
        assert tx.import_contents.doom(failed, now() - HOUR, now()) == 0
    assert taken(store, [A]) == set()


def test_a_failed_import_forgets_its_shards_and_begins_anew(store, new_import):
    id = new_import(2 * HOUR)
    with store.write() as tx:
        plan = tx.job_tasks.claim(["cpu"], "w", 30.0, 10)
        tx.job_tasks.finish_plan(plan, [Shard("k1", {}), Shard("k2", {})], {})
        shard = tx.job_tasks.claim(["cpu"], "w", 30.0, 10)
        tx.job_tasks.finish_shard(shard, C)
        tx.import_contents.note(id, [A])
        tx.jobs.end(id, "failed", error="X: y")
        tx.jobs.set(id, finished_at=now() - 2 * HOUR)
    assert doomed(store) == 1
    with store.write() as tx:
        assert tx.job_tasks.known_results(["k1", "k2"]) == {}
        assert tx.jobs.get(id).n_shards == 0
        assert tx.import_contents.due(now(), timedelta(0), 10) == [A, C]  # the part's own bytes too
        tx.jobs.retry(id)
        again = tx.job_tasks.claim(["cpu"], "w", 30.0, 10)
        assert (again.job_id, again.stage) == (id, "plan")
        assert tx.job_tasks.claim(["cpu"], "w", 30.0, 10) is None
        tx.job_tasks.finish_plan(again, [Shard("k1", {})], {})
        assert tx.job_tasks.claim(["cpu"], "w", 30.0, 10).stage == "shard"


@pytest.mark.parametrize("first", ["noting", "removing"])
def test_who_comes_second_waits_and_sees_what_the_first_did(store, new_import, first):
    failed = new_import(2 * HOUR, "failed")
    with store.write() as tx:
        tx.import_contents.note(failed, [A])
    doomed(store)
    another, there, said = new_import(), {A}, []
    inside, goes_on = threading.Event(), threading.Event()

    def note():
        with store.write() as tx:
            tx.import_contents.note(another, [A])
            if first == "noting":
                inside.set()
                goes_on.wait(10)
        said.append(A in there)

    def remove():
        with store.write() as tx:
            got = tx.import_contents.take([A], now(), timedelta(0))
            if first == "removing":
                inside.set()
                goes_on.wait(10)
            there.difference_update(got)

    one, other = (note, remove) if first == "noting" else (remove, note)
    threads = [threading.Thread(target=one), threading.Thread(target=other)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()  # it waits
    goes_on.set()
    for thread in threads:
        thread.join(10)
    # Who noted knows the truth: the bytes are there and stay, or it has seen that they are gone.
    assert said == [A in there] == [first == "noting"]
