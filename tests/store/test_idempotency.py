"""The same request again gets the same answer and does nothing again."""

from datetime import timedelta

import pytest

from fulcrum.domain.errors import IdempotencyConflict
from fulcrum.domain.identifiers import now
from fulcrum.store import idempotency
from fulcrum.store.idempotency import StoredResponse

BODY = b'{"x": "\xc3\xa4\\u0000"}\x00\xff'


def test_the_answer_of_the_first_time_is_given_again(world):
    user = world.user.id
    with world.store.write() as tx:
        assert tx.idempotency.begin(user, "key", "print") is None
    with world.store.write() as tx:
        tx.idempotency.finish(user, "key", 201, BODY, {"etag": '"1"'})
    for _ in range(2):
        with world.store.write() as tx:
            assert tx.idempotency.begin(user, "key", "print") == StoredResponse(201, BODY, {"etag": '"1"'})


def test_a_key_that_still_runs_or_belongs_to_another_request_is_refused(world):
    user = world.user.id
    with world.store.write() as tx:
        assert tx.idempotency.begin(user, "key", "print") is None
        with pytest.raises(IdempotencyConflict, match="still runs"):
            tx.idempotency.begin(user, "key", "print")
        tx.idempotency.finish(user, "key", 200, b"")
        with pytest.raises(IdempotencyConflict, match="another request"):
            tx.idempotency.begin(user, "key", "other print")


def test_keys_of_different_users_have_nothing_to_do_with_each_other(world):
    with world.store.write() as tx:
        assert tx.idempotency.begin(world.user.id, "key", "print") is None
        assert tx.idempotency.begin(world.other.id, "key", "other") is None


def test_a_request_that_failed_can_be_tried_again_but_a_kept_answer_stays(world):
    user = world.user.id
    with world.store.write() as tx:
        assert tx.idempotency.begin(user, "key", "print") is None
        tx.idempotency.abandon(user, "key")
        assert tx.idempotency.begin(user, "key", "print") is None
        tx.idempotency.finish(user, "key", 200, b"done")
        tx.idempotency.abandon(user, "key")
        assert tx.idempotency.begin(user, "key", "print") == StoredResponse(200, b"done", {})


def test_an_old_answer_is_forgotten_and_a_dead_request_gives_its_key_back(world, monkeypatch):
    user = world.user.id
    with world.store.write() as tx:
        tx.idempotency.begin(user, "answered", "print")
        tx.idempotency.finish(user, "answered", 200, b"")
        tx.idempotency.begin(user, "died", "print")
    later = now() + idempotency.LEASE + timedelta(seconds=1)
    monkeypatch.setattr(idempotency, "now", lambda: later)
    with world.store.write() as tx:
        assert tx.idempotency.begin(user, "died", "print") is None
        assert tx.idempotency.begin(user, "answered", "print") is not None
        assert tx.idempotency.purge() == 0
    later = now() + idempotency.KEEP + timedelta(seconds=1)
    with world.store.write() as tx:
        assert tx.idempotency.begin(user, "answered", "other") is None
    later += idempotency.KEEP
    with world.store.write() as tx:
        assert tx.idempotency.purge() == 2


def test_what_expired_is_forgotten_by_whoever_comes_next(world, monkeypatch):
    with world.store.write() as tx:
        tx.idempotency.begin(world.user.id, "old", "print")
        tx.idempotency.finish(world.user.id, "old", 200, b"x" * 1000)
    later = now() + idempotency.KEEP + timedelta(seconds=1)
    monkeypatch.setattr(idempotency, "now", lambda: later)
    with world.store.write() as tx:
        tx.idempotency.begin(world.other.id, "new", "print")
        assert tx.idempotency.purge() == 0  # nothing was left to do
