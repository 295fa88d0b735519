import threading

import pytest

from fulcrum.domain.errors import InvalidSettings
from fulcrum.engine.byte_lru import ByteLru


def test_what_was_used_longest_ago_goes_first():
    cache: ByteLru[str, int] = ByteLru(20)
    for name in ("a", "b"):
        cache.get_or_make(name, lambda: (1, 10))
    cache.get_or_make("a", lambda: pytest.fail("a is kept"))
    cache.get_or_make("c", lambda: (1, 10))
    made = []
    cache.get_or_make("a", lambda: pytest.fail("a was used more recently than b"))
    cache.get_or_make("b", lambda: (made.append("b"), 10))
    assert made == ["b"]
    assert cache.counts.size_bytes == 20
    assert cache.counts.evictions == 2


def test_a_value_larger_than_the_budget_is_returned_and_evicts_nothing():
    cache: ByteLru[str, int] = ByteLru(10)
    cache.get_or_make("small", lambda: (1, 5))
    assert cache.get_or_make("large", lambda: (2, 11)) == 2
    assert cache.counts.n_entries == 1
    cache.get_or_make("small", lambda: pytest.fail("it must still be there"))


def test_two_threads_never_make_the_same_value():
    cache: ByteLru[str, int] = ByteLru(10)
    made, start = [], threading.Barrier(4)

    def make():
        made.append(1)
        return 7, 1

    def ask(results):
        start.wait()
        results.append(cache.get_or_make("x", make))

    results: list[int] = []
    threads = [threading.Thread(target=ask, args=(results,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [7] * 4
    assert made == [1]


def test_an_error_while_making_leaves_nothing_behind():
    cache: ByteLru[str, int] = ByteLru(10)

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get_or_make("x", fail)
    assert cache.get_or_make("x", lambda: (3, 1)) == 3


def test_a_negative_budget_is_refused():
    with pytest.raises(InvalidSettings, match="-1"):
        ByteLru(-1)
