import threading
import time

import pytest
from tests.worker.counting import Counting, numbers

from fulcrum.domain.errors import InvalidRequest, LeaseLost, OutOfMemory, UnknownModel
from fulcrum.domain.jobs import Shard
from fulcrum.worker.held import Stopping, Terms
from fulcrum.worker.machine import Machine


def with_handler(counting):
    return {"describe_concepts": counting}


def test_a_job_is_planned_computed_in_shards_and_reduced_in_the_order_of_its_plan(workshop):
    counting = Counting()
    job = workshop.run(workshop.submit(numbers(5)), with_handler(counting))
    assert (job.state, job.result) == ("succeeded", {"values": [0, 1, 4, 9, 16], "sum": 30})
    assert (job.n_shards, job.n_shards_done, job.n_shards_reused) == (5, 5, 0)
    assert job.started_at <= job.finished_at
    assert workshop.log(job) == ["5 numbers"]
    assert workshop.metrics(job) == [{"sum": 30.0}]
    assert [e.number for e in workshop.events(job)] == [1, 2]


def test_a_shard_that_was_computed_for_another_job_is_not_computed_again(workshop):
    counting = Counting()
    workshop.run(workshop.submit(numbers(3)), with_handler(counting))
    job = workshop.run(workshop.submit(numbers(5)), with_handler(counting))
    assert (job.n_shards, job.n_shards_done, job.n_shards_reused) == (5, 5, 3)
    assert counting.computed == [0, 1, 2, 3, 4]
    assert job.result["sum"] == 30


def test_a_stored_result_whose_bytes_are_gone_is_computed_again(workshop):
    first = workshop.run(workshop.submit(numbers(2)), with_handler(Counting()))
    with workshop.store.read() as tx:
        results = tx.job_tasks.results(first.id)
    workshop.artifacts.delete(results[1].sha256)
    counting = Counting()
    job = workshop.run(workshop.submit(numbers(2)), with_handler(counting))
    assert (counting.computed, job.result["sum"]) == ([1], 1)


def test_a_job_without_shards_goes_straight_to_its_reduce(workshop):
    job = workshop.run(workshop.submit(numbers(0)), with_handler(Counting()))
    assert (job.state, job.result) == ("succeeded", {"values": [], "sum": 0})


def test_an_error_that_a_person_can_act_on_is_the_jobs_error(workshop):
    def refuse(work, shard):
        raise InvalidRequest("the split has no images: \x00\udcff")

    job = workshop.run(workshop.submit(numbers(2)), with_handler(Counting(refuse)))
    assert (job.state, job.error) == ("failed", "INVALID_REQUEST: the split has no images: ?")
    assert workshop.log(job)[-1].startswith("INVALID_REQUEST: the split")


def test_a_bug_is_an_internal_error_without_its_traceback(workshop):
    def bug(work, shard):
        raise KeyError("secret detail")

    job = workshop.run(workshop.submit(numbers(1)), with_handler(Counting(bug)))
    assert job.state == "failed"
    assert job.error.startswith("INTERNAL_ERROR: shard 0 of job")
    assert "KeyError" in job.error
    assert "secret" not in job.error


@pytest.mark.parametrize("error", [OutOfMemory("full", 0.0), OSError(28, "No space left on device")])
def test_what_may_work_later_is_tried_again_and_given_up_in_the_end(workshop, monkeypatch, error):
    monkeypatch.setattr("fulcrum.worker.running._TRY_AGAIN_S", 0.0)
    tries = []

    def full(work, shard):
        tries.append(shard)
        raise error

    job = workshop.run(workshop.submit(numbers(1)), with_handler(Counting(full)))
    assert len(tries) == 3
    assert job.state == "failed"
    assert job.error.startswith(("OUT_OF_MEMORY: full", "SERVICE_UNAVAILABLE: shard 0 of job"))


def test_what_fails_once_succeeds_at_the_second_try(workshop):
    tries = []

    def once(work, shard):
        tries.append(shard)
        if len(tries) == 1:
            raise OutOfMemory("full", 0.0)

    job = workshop.run(workshop.submit(numbers(1)), with_handler(Counting(once)))
    assert (job.state, len(tries)) == ("succeeded", 2)
    assert any("tried again" in line for line in workshop.log(job))


def test_a_job_without_a_handler_fails_with_words(workshop):
    job = workshop.run(workshop.submit(numbers(1)), {})
    assert job.error == "INTERNAL_ERROR: this worker has no handler for jobs of the kind 'describe_concepts'"


def wait_for(true, seconds=5.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_cancelled_job_ends_in_the_middle_of_a_shard_and_keeps_what_was_done(workshop):
    cancelled = threading.Event()

    def cancel_at_one(work, shard):
        if shard.content["number"] == 1:
            with workshop.store.write() as tx:
                assert tx.jobs.cancel(work.job.id).state == "running"
            until = time.monotonic() + 5
            while time.monotonic() < until:
                work.progress("squaring", 0.5, 1)
                time.sleep(0.01)

    job = workshop.run(workshop.submit(numbers(3)), with_handler(Counting(cancel_at_one)))
    assert not cancelled.is_set()
    assert (job.state, job.n_shards_done) == ("cancelled", 1)
    assert job.error.startswith("JOB_CANCELLED")
    with workshop.store.write() as tx:
        tx.jobs.retry(job.id)
    counting = Counting()
    job = workshop.run(job, with_handler(counting))
    assert (job.state, job.error, job.result["sum"]) == ("succeeded", None, 5)
    assert counting.computed == [1, 2]


def test_progress_counts_the_whole_job_with_rate_and_time_left(workshop):
    seen = []

    def slow(work, shard):
        if shard.content["number"] == 1:
            for i in range(8):
                work.progress("squaring", i, 10)
                time.sleep(0.1)
            wait_for(lambda: workshop.job(work.job).progress is not None)
            seen.append(workshop.job(work.job).progress)

    workshop.run(workshop.submit(numbers(2)), with_handler(Counting(slow)))
    (progress,) = seen
    assert (progress.what, progress.total, progress.unit) == ("squaring", 20, "images")
    assert 10 < progress.done < 20
    assert 5 < progress.rate_per_s < 15
    assert progress.eta_s == pytest.approx((20 - progress.done) / progress.rate_per_s)


def test_a_worker_that_lost_its_lease_writes_nothing(workshop):
    """Its process slept; another one took the shard over and has the other answer."""

    class Asleep(Counting):
        def run_shard(self, work, shard):
            with workshop.store.write() as tx:
                tx.job_tasks.take_over()
            awake = Counting()
            workshop.runner(with_handler(awake), machine=workshop.new_machine("awake")).run_until_idle()
            assert awake.computed == [0]
            return b"1000"

    gone = Terms(lease_s=-1.0, beat_s=60.0)
    job = workshop.submit(numbers(1))
    planner = workshop.runner(with_handler(Counting()))
    planner.run(planner._claim(["gpu"]))
    runner = workshop.runner(with_handler(Asleep()), terms=gone)
    runner.run(runner._claim(["gpu"]))
    job = workshop.job(job)
    assert (job.state, job.result["values"]) == ("succeeded", [0])


def test_a_stopping_worker_gives_its_stage_back_and_that_is_no_attempt(workshop):
    job = workshop.submit(numbers(1))
    for _ in range(4):
        stopping = Stopping()

        def stop(work, shard, stopping=stopping):
            stopping.ask()
            work.progress("squaring", 0, 1)
            raise AssertionError("not reached")

        terms = Terms(beat_s=0.05, drain_s=0.0)
        workshop.runner(with_handler(Counting(stop)), stopping=stopping, terms=terms).run_until_idle()
        assert workshop.job(job).state == "running"
    job = workshop.run(job, with_handler(Counting()))
    assert job.state == "succeeded"


def test_a_stage_that_kills_its_workers_is_given_up_after_three_attempts(workshop):
    job = workshop.submit(numbers(1))
    for _ in range(3):
        with workshop.store.write() as tx:
            assert tx.job_tasks.claim(["gpu"], "lost", -1.0, 4) is not None
        with workshop.store.write() as tx:
            assert tx.job_tasks.take_over() == 1
    job = workshop.job(job)
    assert job.state == "failed"
    assert job.error.startswith("TOO_MANY_ATTEMPTS: the plan of job")


def test_a_stage_that_keeps_what_it_did_may_lose_its_workers_as_often_as_it_likes(workshop):
    class Killed(Counting):
        def run_shard(self, work, shard):
            if keeps:
                work.kept()
            work.beat()
            raise LeaseLost("killed")

    job = workshop.submit(numbers(1))
    planner = workshop.runner(with_handler(Counting()))
    planner.run(planner._claim(["gpu"]))

    def lose():
        runner = workshop.runner(with_handler(Killed()), terms=Terms(lease_s=-1.0, beat_s=60.0))
        runner.run(runner._claim(["gpu"]))
        with workshop.store.write() as tx:
            assert tx.job_tasks.take_over() == 1

    keeps = True
    for _ in range(5):
        lose()
    keeps = False  # and from then on it comes no further
    for _ in range(2):
        assert workshop.job(job).state == "running"
        lose()
    job = workshop.job(job)
    assert (job.state, job.error.partition(":")[0]) == ("failed", "TOO_MANY_ATTEMPTS")


def test_the_scratch_of_a_job_survives_attempts_and_goes_with_the_job(workshop):
    folders = []

    def leave(work, shard):
        folders.append(work.folder)
        (work.folder / "checkpoint").touch()
        if len(folders) == 1:
            raise OutOfMemory("full", 0.0)

    job = workshop.run(workshop.submit(numbers(1)), with_handler(Counting(leave)))
    assert job.state == "succeeded"
    assert folders[0] == folders[1]
    assert not folders[0].exists()


def test_scratch_of_a_job_that_ended_elsewhere_is_swept(workshop):
    job = workshop.submit(numbers(1))
    folder = workshop.machine.folder_of(job.id)
    workshop.machine.sweep()
    assert folder.exists()
    with workshop.store.write() as tx:
        tx.jobs.cancel(job.id)
    workshop.machine.sweep()
    assert not folder.exists()


def test_registered_models_and_saes_are_what_the_engine_takes(workshop):
    sae = workshop.add_demo_sae()
    model, place = workshop.machine.sae(workshop.project.id, sae.id)
    assert workshop.machine.engine.load_sae(place, model).d_sae > 0
    with pytest.raises(UnknownModel):
        workshop.machine.model("prj_other", sae.model_id)


def test_a_machine_loads_no_engine_before_somebody_asks(workshop, tmp_path):
    machine = Machine(workshop.store, workshop.artifacts, tmp_path / "s", make_engine=lambda: 1 / 0)
    assert machine.name


def test_shards_of_one_key_are_one_computation(workshop):
    class Twice(Counting):
        def plan(self, work):
            return [Shard("the same", {"number": 3}), Shard("the same", {"number": 3})]

    twice = Twice()
    job = workshop.run(workshop.submit(numbers(2)), with_handler(twice))
    assert (job.result["values"], twice.computed, job.n_shards_reused) == ([9, 9], [3], 1)
