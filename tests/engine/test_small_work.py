"""Work that is not worth the way to the device thread: where it runs, and what it leaves to others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.scheduling import Gate, Recorder, rows_of, wait_until

from fulcrum.domain.errors import Cancelled, ComputationFailed, ServiceUnavailable
from fulcrum.engine import cores
from fulcrum.engine.batching import Batcher
from fulcrum.engine.scopes import Cancellation, request_scope


@pytest.fixture
def batcher():
    with Batcher(max_rows=8, bucket=4) as made:
        yield made


def on_threads(seen):
    def run(rows):
        seen.append(threading.current_thread())
        return (rows[0] * 2,)

    return run


def test_small_work_runs_where_it_is_asked_while_nothing_else_does(batcher):
    seen = []
    run, own = on_threads(seen), threading.current_thread()
    with request_scope() as figures:
        assert batcher.submit("stage", rows_of(1, 2), run, 1)[0][:, 0].tolist() == [2.0, 4.0]
    assert seen == [own]
    assert figures.batch_size == 2
    assert batcher.run_alone(threading.current_thread, 1) is own
    counts = batcher.counts
    assert (counts.batches, counts.rows, counts.sizes) == (2, 3, {2: 1, 1: 1})
    assert batcher.queue_depth == 0
    assert batcher.queued_bytes == 0
    assert batcher.stalled_s == 0

    def elsewhere(**how):
        seen.clear()
        batcher.submit("stage", rows_of(1), run, how.get("product"))
        return seen[0] is not own

    assert elsewhere()  # nothing is known of its size
    assert elsewhere(product=cores.ONE_CORE_PRODUCT + 1)
    assert not elsewhere(product=cores.ONE_CORE_PRODUCT)
    with request_scope(deterministic=True):
        assert elsewhere(product=1)
    seen.clear()
    batcher.submit("stage", rows_of(*range(9)), run, 1)
    assert own not in seen  # more than a forward may have


def test_small_work_queues_behind_what_runs(batcher):
    seen = []
    with ThreadPoolExecutor(2) as pool:
        with Gate(batcher):
            asked = pool.submit(batcher.submit, "stage", rows_of(3), on_threads(seen), 1)
            wait_until(lambda: batcher.queue_depth == 2)
        assert asked.result(20)[0][0, 0] == 6.0
    assert [thread.name for thread in seen] == ["fulcrum-device"]


def test_others_wait_for_work_that_runs_where_it_was_asked_and_then_share_a_forward(batcher):
    entered, go_on, later = threading.Event(), threading.Event(), Recorder()

    def slow(rows):
        entered.set()
        assert go_on.wait(20)
        return rows

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.submit, "slow", rows_of(1), slow, 1)
        assert entered.wait(20)
        others = [pool.submit(batcher.submit, "stage", rows_of(v), later, 1) for v in (5, 6)]
        wait_until(lambda: batcher.queue_depth == 3)
        time.sleep(0.05)
        assert later.batches == []
        go_on.set()
        assert first.result(20)[0][0, 0] == 1.0
        assert [o.result(20)[0][0, 0] for o in others] == [10.0, 12.0]
    assert sorted(map(sorted, later.batches)) == [[5.0, 6.0]]


def test_small_work_may_ask_for_more_and_may_fail(batcher):
    def nested(rows):
        inner = batcher.submit("inner", rows, Recorder(), 1)[0]
        return (inner + batcher.run_alone(lambda: 1.0),)

    assert batcher.submit("outer", rows_of(1), nested, 1)[0][0, 0] == 3.0

    def fails(rows):
        raise ComputationFailed("not this one")

    with pytest.raises(ComputationFailed, match="not this one"):
        batcher.submit("outer", rows_of(1), fails, 1)
    cancellation = Cancellation()
    cancellation.set()
    with request_scope(cancellation=cancellation), pytest.raises(Cancelled):
        batcher.submit("outer", rows_of(1), Recorder(), 1)
    assert batcher.queue_depth == 0
    assert batcher.submit("outer", rows_of(1), Recorder(), 1)[0][0, 0] == 2.0


def test_closing_waits_for_small_work_and_refuses_more():
    entered, go_on = threading.Event(), threading.Event()

    def slow(rows):
        entered.set()
        assert go_on.wait(20)
        return rows

    batcher = Batcher()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.submit, "slow", rows_of(1), slow, 1)
        assert entered.wait(20)
        closing = pool.submit(batcher.close)
        time.sleep(0.05)
        assert not closing.done()
        with pytest.raises(ServiceUnavailable):
            batcher.submit("stage", rows_of(1), Recorder(), 1)
        go_on.set()
        assert first.result(20)[0][0, 0] == 1.0
        closing.result(20)
    with pytest.raises(ServiceUnavailable):
        batcher.submit("stage", rows_of(1), Recorder(), 1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_small_and_large_work_of_many_threads_all_end_with_their_own_answers(asked):
    active, most, lock = 0, 0, threading.Lock()

    def run(rows):
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.0005)
        with lock:
            active -= 1
        return (rows[0] * 2,)

    with Batcher(max_rows=4) as batcher, ThreadPoolExecutor(8) as pool:

        def ask(number, name, small):
            return batcher.submit(name, rows_of(number), run, 1 if small else None)[0][0, 0]

        waiting = [pool.submit(ask, n, name, small) for n, (name, small) in enumerate(asked)]
        assert [w.result(20) for w in waiting] == [2.0 * n for n in range(len(asked))]
        assert batcher.counts.rows == len(asked)
        assert batcher.queue_depth == 0
    assert most == 1
