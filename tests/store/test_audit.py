"""The audit log: a line that was changed or removed shows."""

import dataclasses
import hashlib
import json
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import ComputationFailed, InvalidRequest, UnknownModel
from fulcrum.domain.identifiers import now
from fulcrum.store.engines import open_engine
from fulcrum.store.transaction import METADATA

EVENTS = METADATA.tables["audit_events"]


@pytest.fixture
def lines(world):
    with world.store.write() as tx:
        return [
            tx.audit.append(world.user.id, "login", world.user.id),
            tx.audit.append(world.user.id, "model.create", world.model.id, {"name": "B/32", "score": 0.1}),
            tx.audit.append(None, "bootstrap", "", {"odd": "\x00ä\ud800"}),
            tx.audit.append(world.other.id, "model.delete", world.model.id),
        ]


def change(url, statement):
    engine = open_engine(url)
    with engine.execution_options(fulcrum_write=True).begin() as connection:
        assert connection.execute(statement).rowcount == 1
    engine.dispose()


def verify(world):
    with world.store.read() as tx:
        return tx.audit.verify()


def test_an_untouched_log_is_whole_also_when_empty(world):
    assert verify(world)
    with world.store.write() as tx:
        for n in range(5):
            tx.audit.append(None, "a", "s", {"n": n})
    assert verify(world)


def test_the_hash_is_that_of_the_line_and_the_one_before(world, lines):
    previous = "0" * 64
    for number, line in enumerate(lines, start=1):
        content = [
            number,
            line.at.isoformat(),
            line.user_id,
            line.action,
            line.subject,
            line.detail,
            previous,
        ]
        written = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert line.hash == hashlib.sha256(written.encode()).hexdigest()
        assert (line.sequence, line.previous_hash) == (number, previous)
        previous = line.hash


CHANGES = [
    {"action": "model.view"},
    {"user_id": None},
    {"subject": ""},
    {"detail": {"name": "B/32", "score": 0.2}},
    {"detail": {}},
    {"hash": "1" * 64},
    {"previous_hash": "1" * 64},
    {"at": now() - timedelta(days=1)},
    {"sequence": 99},
]


def test_any_changed_field_of_a_line_shows(world, url, lines):
    before = dataclasses.asdict(lines[1])
    for values in CHANGES:
        change(url, sa.update(EVENTS).where(EVENTS.c.sequence == 2).values(**values))
        assert not verify(world), values
        changed = EVENTS.c.sequence == values.get("sequence", 2)
        change(url, sa.update(EVENTS).where(changed).values(**before))
        assert verify(world)


@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_a_removed_line_shows_also_the_last_one(world, url, lines, sequence):
    change(url, sa.delete(EVENTS).where(EVENTS.c.sequence == sequence))
    assert not verify(world)


def test_a_line_rewritten_with_a_fitting_hash_shows_at_the_next(world, url, lines):
    line = lines[1]
    content = [
        2,
        line.at.isoformat(),
        line.user_id,
        "model.view",
        line.subject,
        line.detail,
        line.previous_hash,
    ]
    forged = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    change(url, sa.update(EVENTS).where(EVENTS.c.sequence == 2).values(action="model.view", hash=forged))
    assert not verify(world)


def test_a_line_of_a_transaction_that_failed_never_was(world, lines):
    def append_and_fail():
        with world.store.write() as tx:
            assert tx.audit.append(None, "a", "s").sequence == 5
            tx.models.get("mdl_none")

    with pytest.raises(UnknownModel):
        append_and_fail()
    with world.store.write() as tx:
        assert tx.audit.append(None, "a", "s").sequence == 5
    assert verify(world)


def test_lines_are_filtered_by_who_what_and_which(world, lines):
    with world.store.read() as tx:
        assert tx.audit.list(user_id=world.user.id).items == (lines[1], lines[0])
        assert tx.audit.list(subject=world.model.id).items == (lines[3], lines[1])
        assert tx.audit.list(subject=world.model.id, action="model.delete").items == (lines[3],)
        with pytest.raises(InvalidRequest):
            tx.audit.list(detail="x")


def test_what_cannot_be_written_down_is_refused(world):
    with pytest.raises(ComputationFailed), world.store.write() as tx:
        tx.audit.append(None, "a", "s", {"x": float("nan")})
    with pytest.raises(InvalidRequest), world.store.write() as tx:
        tx.audit.append(None, "a\x00", "s")
    assert verify(world)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    detail=st.dictionaries(
        st.text(max_size=5),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
        max_size=4,
    )
)
def test_any_detail_hashes_the_same_after_it_was_stored(world, detail):
    with world.store.write() as tx:
        line = tx.audit.append(world.user.id, "act", "thing", detail)
        assert tx.audit.verify()
        assert tx.audit.list(limit=1).items == (line,)
