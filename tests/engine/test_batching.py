"""The scheduler by itself, on rows of a few numbers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.scheduling import Gate, Recorder, in_thread, rows_of, wait_until

from fulcrum.domain.errors import (
    Cancelled,
    ComputationFailed,
    DeadlineExceeded,
    InvalidSettings,
    OutOfMemory,
    Overloaded,
    PayloadTooLarge,
    ServiceUnavailable,
)
from fulcrum.engine.batching import Batcher
from fulcrum.engine.scopes import Cancellation, request_scope


@pytest.fixture
def batcher():
    with Batcher(max_rows=8, bucket=4) as made:
        yield made


def test_what_queues_while_the_device_is_busy_goes_through_in_one_forward(batcher):
    run = Recorder()
    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            asked = [in_thread(pool, batcher, run, [i], user=f"u{i}") for i in range(6)]
            wait_until(lambda: batcher.queue_depth == 7)
        assert [a.result(20) for a in asked] == [[2.0 * i] for i in range(6)]
    assert [sorted(b) for b in run.batches] == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    assert batcher.counts.sizes[6] == 1


def test_rows_of_other_stages_or_shapes_never_share_a_forward(batcher):
    run, wide = Recorder(), Recorder()
    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            asked = [
                in_thread(pool, batcher, run, [1], name="one"),
                in_thread(pool, batcher, run, [2], name="two"),
                in_thread(pool, batcher, run, [3], name="one", deterministic=True),
                pool.submit(lambda: batcher.submit("one", (torch.ones(1, 3),), wide)),
            ]
            wait_until(lambda: batcher.queue_depth == 5)
        for a in asked:
            a.result(20)
    # The deterministic stage is checked with rows of its own making before it runs its batch of 4.
    assert [1.0] in run.batches
    assert [2.0] in run.batches
    assert [3.0] * 4 in run.batches
    assert wide.batches == [[1.0]]


def test_a_user_with_many_rows_leaves_room_for_one_with_few(batcher):
    run = Recorder()
    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            many = in_thread(pool, batcher, run, range(100, 140), user="many")
            wait_until(lambda: batcher.queue_depth == 41)
            few = [in_thread(pool, batcher, run, [i], user=f"few {i}") for i in range(2)]
            wait_until(lambda: batcher.queue_depth == 43)
        assert [f.result(20) for f in few] == [[0.0], [2.0]]
        assert many.result(20) == [2.0 * i for i in range(100, 140)]
    assert {0.0, 1.0} <= set(run.batches[0])
    assert all(len(b) <= 8 for b in run.batches)


def test_users_take_turns_when_there_are_more_of_them_than_rows_in_a_batch():
    run = Recorder()
    with Batcher(max_rows=2) as batcher, ThreadPoolExecutor(16) as pool:
        with Gate(batcher):
            asked = [in_thread(pool, batcher, run, [10 * u, 10 * u + 1], user=f"u{u}") for u in range(5)]
            wait_until(lambda: batcher.queue_depth == 11)
        for a in asked:
            a.result(20)
    first_of = {u: next(i for i, b in enumerate(run.batches) if 10 * u in b) for u in range(5)}
    last_of = {u: next(i for i, b in enumerate(run.batches) if 10 * u + 1 in b) for u in range(5)}
    assert max(first_of.values()) <= min(last_of.values())


def test_stages_take_turns(batcher):
    order = []

    def run_as(name):
        def run(rows):
            order.append(name)
            return rows

        return run

    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            a = in_thread(pool, batcher, run_as("a"), range(24), name="a", user="x")
            wait_until(lambda: batcher.queue_depth == 25)
            b = in_thread(pool, batcher, run_as("b"), range(8), name="b", user="y")
            wait_until(lambda: batcher.queue_depth == 33)
        a.result(20), b.result(20)
    assert order == ["a", "b", "a", "a"]


def test_a_poisoned_request_fails_alone(batcher):
    def run(rows):
        if (rows[0] < 0).any():
            raise ComputationFailed("a negative number")
        return (rows[0] * 2,)

    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            asked = [in_thread(pool, batcher, run, [v], user=f"u{v}") for v in (1, -1, 2, 3)]
            wait_until(lambda: batcher.queue_depth == 5)
        assert [asked[i].result(20) for i in (0, 2, 3)] == [[2.0], [4.0], [6.0]]
        with pytest.raises(ComputationFailed, match="negative"):
            asked[1].result(20)
    assert batcher.counts.retried_batches == 1
    wait_until(lambda: batcher.queue_depth == 0)


def test_a_cancelled_request_is_dropped_before_it_runs_and_its_caller_wakes_at_once(batcher):
    run, cancellation = Recorder(), Cancellation()
    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            gone = in_thread(pool, batcher, run, [1, 2, 3], user="gone", cancellation=cancellation)
            stays = in_thread(pool, batcher, run, [4], user="stays")
            wait_until(lambda: batcher.queue_depth == 5)
            cancellation.set()
            with pytest.raises(Cancelled):
                gone.result(20)  # while the device is still busy with something else
            assert batcher.queue_depth == 2
        assert stays.result(20) == [8.0]
    assert run.batches == [[4.0]]
    assert batcher.counts.dropped == 1
    assert batcher.queued_bytes == 0


def test_a_request_whose_deadline_passes_is_dropped_and_later_ones_are_well(batcher):
    run = Recorder()
    with ThreadPoolExecutor(32) as pool:
        with Gate(batcher):
            late = [in_thread(pool, batcher, run, [i], user=f"u{i}", timeout_s=0.05) for i in range(20)]
            for future in late:
                with pytest.raises(DeadlineExceeded):
                    future.result(20)
        assert in_thread(pool, batcher, run, [7]).result(20) == [14.0]
    assert run.batches == [[7.0]]
    with request_scope(timeout_s=-1.0), pytest.raises(DeadlineExceeded):
        batcher.submit("stage", rows_of(1), run)


def test_a_caller_who_goes_away_while_its_rows_run_wakes_and_disturbs_nobody(batcher):
    cancellation, entered, leave = Cancellation(), threading.Event(), threading.Event()

    def run(rows):
        entered.set()
        assert leave.wait(20)
        return (rows[0] * 2,)

    with ThreadPoolExecutor(8) as pool:
        gone = in_thread(pool, batcher, run, [1], cancellation=cancellation)
        assert entered.wait(20)
        cancellation.set()
        with pytest.raises(Cancelled):
            gone.result(20)
        leave.set()
        assert in_thread(pool, batcher, Recorder(), [5], name="other").result(20) == [10.0]


def test_out_of_memory_halves_the_batch_once_and_remembers(batcher):
    sizes = []

    def run(rows):
        sizes.append(len(rows[0]))
        if len(rows[0]) > 4:
            raise torch.OutOfMemoryError("8 rows are too many")
        return (rows[0] * 2,)

    assert batcher.submit("stage", rows_of(*range(8)), run)[0][:, 0].tolist() == [2.0 * i for i in range(8)]
    assert sizes == [8, 4, 4]
    batcher.submit("stage", rows_of(*range(8)), run)
    assert sizes == [8, 4, 4, 4, 4]
    assert batcher.counts.out_of_memory == 1


def test_memory_that_is_full_at_half_the_batch_too_is_an_error_that_says_when_to_come_back(batcher):
    def run(rows):
        raise torch.OutOfMemoryError("no\nmore")

    with pytest.raises(OutOfMemory, match="half") as raised:
        batcher.submit("stage", rows_of(1, 2), run)
    assert raised.value.retry_after_s
    assert batcher.submit("stage", rows_of(3), Recorder())[0][0, 0] == 6.0


def test_a_deterministic_batch_is_never_halved_because_its_size_decides_its_bits(batcher):
    sizes, failing = [], []

    def run(rows):
        sizes.append(len(rows[0]))
        if failing:
            failing.pop()
            raise torch.OutOfMemoryError("once")
        return (rows[0] * 2,)

    with request_scope(deterministic=True):
        batcher.submit("stage", rows_of(1, 2), run)
        failing.append(1)
        assert batcher.submit("stage", rows_of(1, 2), run)[0][:, 0].tolist() == [2.0, 4.0]
    assert set(sizes) == {4}


def test_a_stage_whose_rows_depend_on_their_slot_gets_a_larger_bucket_or_no_promise(batcher):
    def run(rows):  # the last row of an odd number of pairs is computed otherwise, as by a kernel's tail
        out = rows[0] * 2
        if len(out) % 8:
            out[-1] += 1e-6
        return (out,)

    with request_scope(deterministic=True) as figures:
        assert batcher.submit("stage", rows_of(3), run)[0][0, 0] == 6.0
    assert figures.batch_size == 8

    def never(rows):
        return (rows[0] + torch.arange(len(rows[0]))[:, None],)

    with request_scope(deterministic=True), pytest.raises(ComputationFailed, match="every slot"):
        batcher.submit("never", rows_of(3), never)


def test_a_queue_that_is_full_refuses_with_a_hint_and_what_could_never_fit_with_both_numbers():
    run = Recorder()
    with Batcher(max_queue_bytes=32) as batcher, ThreadPoolExecutor(4) as pool:
        with pytest.raises(PayloadTooLarge, match=r"40 bytes.*32"):
            batcher.submit("stage", rows_of(*range(5)), run)
        with Gate(batcher):
            waiting = in_thread(pool, batcher, run, range(3))
            wait_until(lambda: batcher.queued_bytes == 24)
            with pytest.raises(Overloaded, match="24 bytes wait") as raised:
                batcher.submit("stage", rows_of(1, 2), run)
            assert raised.value.retry_after_s > 0
        assert waiting.result(20) == [0.0, 2.0, 4.0]
        assert batcher.queued_bytes == 0


def test_after_a_fatal_error_of_the_device_everyone_is_told_and_nobody_hangs():
    told = []
    batcher = Batcher(on_fatal=told.append)

    def run(rows):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            asked = [in_thread(pool, batcher, run, [i], name=f"s{i}") for i in range(4)]
            wait_until(lambda: batcher.queue_depth == 5)
        for future in asked:
            with pytest.raises(ServiceUnavailable, match="illegal memory access"):
                future.result(20)
    with pytest.raises(ServiceUnavailable, match="started again"):
        batcher.submit("stage", rows_of(1), run)
    batcher.close()
    assert len(told) == 1


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_driver_without_memory_is_no_lost_device(message):
    told, failures = [], [1]

    def run(rows):
        if failures:
            failures.pop()
            raise torch.AcceleratorError(message)
        return (rows[0] * 2,)

    with Batcher(on_fatal=told.append) as batcher:
        assert batcher.submit("stage", rows_of(1, 2), run)[0][:, 0].tolist() == [2.0, 4.0]
        assert batcher.counts.out_of_memory == 1
    assert not told


def test_closing_finishes_what_was_accepted_and_refuses_what_comes_later():
    run = Recorder()
    batcher = Batcher()
    with ThreadPoolExecutor(4) as pool:
        with Gate(batcher) as gate:
            accepted = in_thread(pool, batcher, run, [1])
            wait_until(lambda: batcher.queue_depth == 2)
            closing = pool.submit(batcher.close)
            wait_until(lambda: batcher._closing is not None)
            with pytest.raises(ServiceUnavailable, match="shutting down"):
                batcher.submit("stage", rows_of(1), run)
            gate.open.set()
            closing.result(20)
        assert accepted.result(20) == [2.0]


def test_closing_wakes_callers_of_a_device_that_hangs():
    batcher = Batcher()
    with ThreadPoolExecutor(4) as pool, Gate(batcher):
        waiting = in_thread(pool, batcher, Recorder(), [1])
        wait_until(lambda: batcher.queue_depth == 2)
        batcher.close(timeout_s=0.05)
        with pytest.raises(ServiceUnavailable, match="shut down"):
            waiting.result(20)


def test_a_device_thread_that_submits_does_not_wait_for_itself(batcher):
    def run(rows):
        return batcher.submit("inner", rows, lambda inner: (inner[0] + 1,))

    assert batcher.submit("outer", rows_of(1), run)[0][0, 0] == 2.0
    assert batcher.run_alone(lambda: batcher.run_alone(lambda: 7)) == 7


def test_what_is_returned_holds_no_memory_of_other_requests(batcher):
    with ThreadPoolExecutor(8) as pool:
        with Gate(batcher):
            asked = [
                pool.submit(lambda v=v: batcher.submit("stage", rows_of(v), lambda r: (r[0] * 2,))[0])
                for v in range(4)
            ]
            wait_until(lambda: batcher.queue_depth == 5)
        for answer in (a.result(20) for a in asked):
            assert answer.untyped_storage().nbytes() == answer.numel() * answer.element_size()


def test_the_figures_tell_waiting_from_computing(batcher):
    def run(rows):
        time.sleep(0.03)
        return rows

    with ThreadPoolExecutor(2) as pool, request_scope() as figures:
        gate = Gate(batcher)
        gate.__enter__()
        pool.submit(lambda: (time.sleep(0.05), gate.open.set()))
        batcher.submit("stage", rows_of(1, 2), run)
        gate.__exit__()
    assert figures.queue_ms >= 40
    assert 25 <= figures.compute_ms <= figures.queue_ms + 200
    assert figures.batch_size == 2
    wait_until(lambda: batcher.stalled_s == 0.0)


def test_a_batcher_with_no_room_at_all_is_refused():
    with pytest.raises(InvalidSettings, match="max_rows is 0"):
        Batcher(max_rows=0)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(-3, 50), min_size=1, max_size=30), st.booleans()),
        min_size=1,
        max_size=25,
    )
)
def test_everyone_gets_the_answer_to_their_own_rows_whatever_else_is_asked_or_fails(requests):
    def run(rows):
        if (rows[0][:, 0] == -1).any():
            raise ComputationFailed("minus one")
        return (rows[0] * 2,)

    with Batcher(max_rows=8, bucket=4) as batcher, ThreadPoolExecutor(25) as pool:
        asked = [
            in_thread(pool, batcher, run, values, user=f"u{user}", deterministic=deterministic)
            for user, values, deterministic in requests
        ]
        for (_, values, _), future in zip(requests, asked, strict=True):
            if -1 in values:
                with pytest.raises(ComputationFailed):
                    future.result(20)
            else:
                assert future.result(20) == [2.0 * v for v in values]
        wait_until(lambda: batcher.queue_depth == 0)
        assert batcher.queued_bytes == 0
