import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fulcrum.demo.shipped import demo_model, demo_sae
from fulcrum.domain.errors import Cancelled, CorruptCheckpoint, DeadlineExceeded, InvalidSettings, OutOfMemory
from fulcrum.domain.models import ModelRef
from fulcrum.engine.residency import Residency
from fulcrum.engine.residents import Residents
from fulcrum.engine.scopes import Cancellation, request_scope


def test_a_thing_is_loaded_once_for_everyone_who_asks_meanwhile():
    residents: Residents[str, int] = Residents()
    loads, go_on = [], threading.Event()

    def load():
        loads.append(1)
        assert go_on.wait(20)
        return 7, 1

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(residents.get, "a", load) for _ in range(8)]
        while not residents.loading():
            time.sleep(0.001)
        go_on.set()
        assert [a.result(20) for a in asked] == [7] * 8
    assert len(loads) == 1
    assert residents.counts.n_loading == 0


def test_a_load_goes_on_when_the_one_who_asked_first_goes_away():
    residents: Residents[str, int] = Residents()
    loads, go_on, cancellation = [], threading.Event(), Cancellation()

    def load():
        loads.append(1)
        assert go_on.wait(20)
        return 7, 1

    def ask(**scope):
        with request_scope(**scope):
            return residents.get("a", load)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, cancellation=cancellation)
        while not residents.loading():
            time.sleep(0.001)
        with pytest.raises(DeadlineExceeded):
            ask(timeout_s=0.02)
        second = pool.submit(ask)
        cancellation.set()
        with pytest.raises(Cancelled):
            first.result(20)
        go_on.set()
        assert second.result(20) == 7
    assert len(loads) == 1


def test_a_failed_load_is_an_error_for_everyone_and_leaves_nothing_behind():
    residents: Residents[str, int] = Residents()

    def fail():
        raise CorruptCheckpoint("half of the weights are missing")

    with pytest.raises(CorruptCheckpoint, match="half"):
        residents.get("a", fail)
    assert residents.get("a", lambda: (3, 1)) == 3


def test_the_one_used_longest_ago_makes_room():
    residents: Residents[str, str] = Residents(10)
    for name in ("a", "b"):
        residents.get(name, lambda name=name: (name, 4))
    residents.get("a", lambda: ("again", 4))
    residents.get("c", lambda: ("c", 4))
    assert residents.values() == ["a", "c"]
    assert residents.counts.evictions == 1
    assert residents.counts.size_bytes == 8


def test_what_a_request_uses_is_not_dropped_before_the_request_ends():
    residents: Residents[str, str] = Residents(10, patience_s=20)
    with ThreadPoolExecutor(2) as pool:
        with request_scope():
            residents.get("a", lambda: ("a", 8))
            residents.get("a", lambda: ("a", 8))  # asked for twice, released once
            waiting = pool.submit(residents.get, "b", lambda: ("b", 8))
            time.sleep(0.05)
            assert residents.values() == ["a"]
            assert residents.counts.n_in_use == 1
            assert not waiting.done()
        assert waiting.result(20) == "b"
    assert residents.values() == ["b"]
    assert residents.counts.n_in_use == 0


def test_who_waits_too_long_for_room_is_told_to_come_back():
    residents: Residents[str, str] = Residents(10, patience_s=0.02)
    with request_scope():
        residents.get("a", lambda: ("a", 8))
        with pytest.raises(OutOfMemory, match="running requests hold 8") as raised:
            residents.get("b", lambda: ("b", 8))
        assert raised.value.retry_after_s
    assert residents.get("b", lambda: ("b", 8)) == "b"


def test_what_is_larger_than_the_whole_budget_is_refused_with_both_numbers():
    residents: Residents[str, str] = Residents(10)
    with pytest.raises(OutOfMemory, match=r"11 bytes.*10"):
        residents.get("a", lambda: ("a", 11))
    with pytest.raises(InvalidSettings, match="-1"):
        Residents(-1)


def test_a_load_that_runs_out_of_memory_is_tried_again_in_the_room_of_what_nobody_uses():
    residents: Residents[str, str] = Residents()
    residents.get("idle", lambda: ("idle", 5))
    tries = []

    def load():
        tries.append(residents.values())
        if len(tries) == 1:
            raise torch.OutOfMemoryError("full")
        return "big", 9

    assert residents.get("big", load) == "big"
    assert tries == [["idle"], []]

    def never():
        raise torch.OutOfMemoryError("full")

    with pytest.raises(OutOfMemory):
        residents.get("huge", never)


def test_a_model_under_a_request_stays_and_afterwards_makes_room_and_comes_back():
    twin = ModelRef(demo_model().model_name + "/.")  # the same weights under another name
    plain = Residency()
    plain.steerable(demo_model(), demo_sae())
    residency = Residency(budget_bytes=plain.counts.size_bytes)
    with ThreadPoolExecutor(1) as pool:
        with request_scope():
            first = residency.steerable(demo_model(), demo_sae())
            other = pool.submit(residency.model, twin)
            while residency.loading() != [twin]:
                time.sleep(0.001)
            time.sleep(0.05)
            assert residency.steerable(demo_model(), demo_sae()).loaded is first.loaded
            assert [loaded.info.ref for loaded in residency.models()] == [demo_model()]
        other.result(60)
    assert [loaded.info.ref for loaded in residency.models()] == [twin]
    again = residency.steerable(demo_model(), demo_sae())
    assert again.loaded.info.weights_sha256 == first.loaded.info.weights_sha256
    assert residency.counts.size_bytes <= plain.counts.size_bytes
    assert residency.counts.loads >= 4


def test_a_model_that_no_budget_could_hold_is_refused():
    with pytest.raises(OutOfMemory, match="whole budget"):
        Residency(budget_bytes=1000).model(demo_model())
