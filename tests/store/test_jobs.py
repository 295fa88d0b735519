"""Claims, fair share, leases and ends of jobs, on both databases."""

import dataclasses
import threading
from datetime import timedelta

import pytest

from fulcrum.domain.errors import JobFinished, JobUnfinished, LeaseLost, UnknownJob
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import IndexDataset, JobProgress, JobRecord, Shard, TrainSae


@pytest.fixture
def new_job(store, world):
    def make(user=None, key=None, after=(), **changes):
        spec = IndexDataset(world.dataset.id, world.sae.id)
        job = JobRecord(
            new_id("job"),
            world.project.id,
            spec.kind,
            spec,
            (user or world.user).id,
            now(),
            "gpu",
            key=key,
            after=after,
        )
        with store.write() as tx:
            return tx.jobs.add(dataclasses.replace(job, **changes))

    return make


@pytest.fixture
def claim(store):
    def claim(worker="w", lease_s=30.0, limit=100):
        with store.write() as tx:
            return tx.job_tasks.claim(["gpu"], worker, lease_s, limit)

    return claim


def planned(store, claim, n, prefix=""):
    """The next job with `n` shards, none of them claimed."""
    task = claim()
    with store.write() as tx:
        tx.job_tasks.finish_plan(task, [Shard(f"{prefix}{task.job_id}{i}", {"i": i}) for i in range(n)], {})
    return task


def get(store, job):
    with store.read() as tx:
        return tx.jobs.get(job.id)


def test_a_job_comes_back_as_it_was_given(store, world, new_job):
    spec = TrainSae(world.dataset.id, world.model.id, "mid ü", learning_rate=1e-3, split="discover")
    job = new_job(kind="train_sae", spec=spec, key="k" * 64)
    assert get(store, job) == job
    assert job.spec == spec
    with store.read() as tx:
        assert tx.jobs.list(world.project.id, kind="train_sae", state="queued").items == (job,)
        assert tx.jobs.list(world.project.id, kind="index_dataset").items == ()


def test_one_stage_is_claimed_once_by_many_workers(store, new_job, claim):
    new_job()
    planned(store, claim, 20)
    claimed, lock = [], threading.Lock()

    def work(name):
        while (task := claim(name)) is not None:
            with lock:
                claimed.append((task.stage, task.number))

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [("shard", i) for i in range(20)]


def test_the_last_of_shards_that_end_at_once_makes_one_reduce_ready(store, new_job, claim):
    job = new_job()
    planned(store, claim, 8)
    tasks = [claim() for _ in range(8)]

    def finish(task):
        with store.write() as tx:
            tx.job_tasks.finish_shard(task, "a" * 64)

    threads = [threading.Thread(target=finish, args=(t,)) for t in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get(store, job).n_shards_done == 8
    assert claim().stage == "reduce"
    assert claim() is None


def test_who_has_less_running_is_served_first_and_then_the_oldest(store, world, new_job, claim):
    mine = new_job()
    planned(store, claim, 4)
    others = new_job(world.other)
    order = [claim().job_id for _ in range(3)]
    assert order == [mine.id, others.id, mine.id]


def test_nobody_runs_more_than_the_limit(store, world, new_job, claim):
    new_job()
    planned(store, claim, 4)
    assert claim(limit=1) is not None
    assert claim(limit=1) is None
    others = new_job(world.other)
    assert claim(limit=1).job_id == others.id


def test_the_place_in_the_queue_is_the_order_of_claims(store, world, new_job, claim):
    first, second = new_job(), new_job()
    others = new_job(world.other)
    with store.read() as tx:
        places = [tx.jobs.position(job) for job in (first, second, others)]
    assert places == [1, 3, 2]
    assert [claim().job_id for _ in range(3)] == [first.id, others.id, second.id]
    with store.read() as tx:
        assert tx.jobs.position(tx.jobs.get(first.id)) is None


def test_an_older_hand_can_change_nothing(store, new_job, claim):
    new_job()
    old = claim("old", lease_s=-1.0)
    with store.write() as tx:
        assert tx.job_tasks.take_over() == 1
    new = claim("new")
    assert new.attempt == 2
    for change in (
        lambda tx: tx.job_tasks.renew(old, 30.0),
        lambda tx: tx.job_tasks.finish_plan(old, [], {}),
        lambda tx: tx.job_tasks.fail(old, "X: y"),
        lambda tx: tx.job_tasks.give_back(old),
        lambda tx: tx.job_tasks.acknowledge_cancel(old),
    ):
        with pytest.raises(LeaseLost), store.write() as tx:
            change(tx)
    with store.write() as tx:
        assert tx.job_tasks.renew(new, 30.0) is False


def test_a_renewed_lease_is_not_taken_over(store, new_job, claim):
    new_job()
    task = claim(lease_s=-1.0)
    with store.write() as tx:
        tx.job_tasks.renew(task, 30.0)
        assert tx.job_tasks.take_over() == 0


def test_progress_of_shards_that_run_at_once_adds_up(store, new_job, claim):
    job = new_job()
    planned(store, claim, 4)
    first, second = claim(), claim()
    with store.write() as tx:
        tx.job_tasks.renew(first, 30.0, JobProgress("encoding", 50, 100, rate_per_s=10.0))
        tx.job_tasks.renew(second, 30.0, JobProgress("encoding", 25, 100, rate_per_s=10.0))
    progress = get(store, job).progress
    assert (progress.done, progress.total, progress.rate_per_s) == (75, 400, 20.0)
    assert progress.eta_s == 325 / 20


def test_a_job_waits_for_those_it_comes_after(store, new_job, claim):
    first = new_job()
    second = new_job(after=(first.id,))
    task = claim()
    assert (task.job_id, claim()) == (first.id, None)
    with store.write() as tx:
        tx.job_tasks.finish_plan(task, [], {})
    reduce = claim()
    with store.write() as tx:
        tx.job_tasks.finish_reduce(reduce, {"id": 1})
        assert tx.jobs.newly_ready == {"gpu": 1}
    assert claim().job_id == second.id
    assert new_job(after=(first.id,)).state == "queued"


def test_jobs_that_wait_for_a_failed_one_fail_with_its_name_and_so_on(store, new_job, claim):
    first = new_job()
    second = new_job(after=(first.id,))
    third = new_job(after=(second.id,))
    task = claim()
    with store.write() as tx:
        tx.job_tasks.fail(task, "INVALID_DATASET: no labels")
    assert get(store, second).state == "failed"
    assert get(store, second).error == (
        f"NEEDED_JOB_FAILED: job {first.id} (index_dataset) had to succeed first and is failed: "
        "INVALID_DATASET: no labels"
    )
    assert f"job {second.id}" in get(store, third).error
    late = new_job(after=(first.id,))
    assert late.state == "failed"
    assert claim() is None


def test_a_job_cannot_come_after_one_of_another_project(store, world, new_job):
    with pytest.raises(UnknownJob):
        new_job(after=("job_none",))


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_when_its_worker_agrees(store, new_job, claim):
    running, queued = new_job(), new_job()
    task = claim()
    with store.write() as tx:
        assert tx.jobs.cancel(queued.id).state == "cancelled"
        assert tx.jobs.cancel(running.id).state == "running"
    with store.write() as tx:
        assert tx.job_tasks.renew(task, 30.0) is True
        tx.job_tasks.acknowledge_cancel(task)
    assert get(store, running).state == "cancelled"
    assert claim() is None
    with pytest.raises(JobFinished), store.write() as tx:
        tx.jobs.cancel(running.id)


def test_a_cancelled_job_whose_worker_is_gone_is_cancelled_and_not_run_again(store, new_job, claim):
    job = new_job()
    claim(lease_s=-1.0)
    with store.write() as tx:
        tx.jobs.cancel(job.id)
    with store.write() as tx:
        tx.job_tasks.take_over()
    assert get(store, job).state == "cancelled"
    assert claim() is None


def test_a_cancelled_job_ends_when_its_running_plan_ends(store, new_job, claim):
    job = new_job()
    task = claim()
    with store.write() as tx:
        tx.jobs.cancel(job.id)
    with store.write() as tx:
        tx.job_tasks.finish_plan(task, [Shard("k", {})], {})
    assert get(store, job).state == "cancelled"
    assert claim() is None


def test_only_what_failed_or_was_cancelled_can_be_tried_again(store, new_job, claim):
    job = new_job()
    with pytest.raises(JobUnfinished), store.write() as tx:
        tx.jobs.retry(job.id)
    task = claim()
    with store.write() as tx:
        tx.job_tasks.fail(task, "X: y")
    with store.write() as tx:
        again = tx.jobs.retry(job.id)
    assert (again.state, again.error, again.finished_at) == ("queued", None, None)
    assert claim().attempt == 2


def test_a_failed_try_waits_before_the_next(store, new_job, claim):
    new_job()
    task = claim()
    with store.write() as tx:
        tx.job_tasks.give_back(task, wait_s=60.0)
    assert claim() is None
    with store.read() as tx:
        assert tx.job_tasks.n_ready("gpu") == 0
        assert 50 < tx.job_tasks.next_due_s(["gpu"]) <= 60


def test_the_newest_good_job_of_a_content_is_found(store, world, new_job, claim):
    key = "k" * 64
    cancelled = new_job(key=key)
    with store.write() as tx:
        tx.jobs.cancel(cancelled.id)
    with store.read() as tx:
        assert tx.jobs.by_key(world.project.id, key) is None
    job = new_job(key=key)
    with store.read() as tx:
        assert tx.jobs.by_key(world.project.id, key).id == job.id
        assert tx.jobs.by_key("prj_other", key) is None
        assert tx.jobs.n_unfinished(world.user.id) == 1


def test_the_first_result_of_a_shard_is_kept(store):
    with store.write() as tx:
        assert tx.job_tasks.keep_result("k", "a" * 64) == "a" * 64
        assert tx.job_tasks.keep_result("k", "b" * 64) == "a" * 64


def test_events_are_numbered_paged_and_forgotten_once_their_job_has_ended(store, new_job, claim):
    job = new_job()
    with store.write() as tx:
        for i in range(3):
            tx.job_events.append(job.id, [(now(), "log", {"text": f"\x00 {i}"}), (now(), "metric", {"x": i})])
    with store.read() as tx:
        assert [e.number for e in tx.job_events.after(job.id, 2)] == [3, 4, 5, 6]
        page = tx.job_events.list(job.id, "log", limit=2)
        assert [e.content["text"] for e in page.items] == ["\x00 0", "\x00 1"]
        rest = tx.job_events.list(job.id, "log", limit=2, cursor=page.next_cursor)
        assert ([e.number for e in rest.items], rest.next_cursor) == ([5], None)
    with store.write() as tx:
        assert tx.job_events.forget(now() + timedelta(seconds=1)) == 0
        tx.jobs.cancel(job.id)
        assert tx.job_events.forget(now() + timedelta(seconds=1)) == 6


def test_a_job_whose_promotion_was_missed_is_settled_later(store, new_job, claim):
    first = new_job()
    second = new_job(after=(first.id,))
    with store.write() as tx:
        tx.jobs.set(first.id, state="succeeded")  # as if the other transaction had not been seen
    assert claim().job_id == first.id
    with store.write() as tx:
        tx.jobs.settle_waiting()
    assert claim().job_id == second.id
