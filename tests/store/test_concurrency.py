"""Several processes write at once: nothing is lost, nothing happens twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import Conflict, StaleVersion, UnknownUser
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Member, Project, User
from fulcrum.store.database import open_store

SERVICES = Path(__file__).parents[2] / "services"
N_WRITERS = 3
N_EACH = 12  # transactions of each kind and writer

ONCE = {"claim", "redeem", "begin"}  # of these one writer gets each number
ALWAYS = {"mark", "mark_inside", "version", "label"}


@contextmanager
def writers(world, url, n_each):
    ids = {"user": world.user.id, "project": world.project.id, "sae": world.sae.id}
    given = json.dumps({**ids, "correction": world.correction.id})
    started = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("writer.py"), url, f"w{i}", str(i), str(n_each), given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SERVICES), "PYTHONWARNINGS": "error"},
        )
        for i in range(N_WRITERS)
    ]
    try:
        for process in started:
            assert json.loads(process.stdout.readline()) == "ready"
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def number(word):
    return word.split("-")[1]


def check(world, url, reported):
    """What the processes say they committed is there; what is there, is there once and whole.

    Returns the audit log by action, for who knows how much there must be.
    """
    with open_store(url) as store, store.read() as tx:
        head = tx.corrections.get(world.correction.id)
        versions = tx.corrections.versions(head.id, limit=1000).items
        concept = tx.concepts.by_latent(world.sae.id, 99)
        lines = tx.audit.list(limit=1000).items
        names = [p.name for p in tx.projects.list(limit=1000).items]
        assert tx.audit.verify()
    log = {action: [e.subject for e in lines if e.action == action] for action in ALWAYS | ONCE}
    for action, words in log.items():
        assert {word for name, word, mine in reported if name == action and mine} <= set(words)
        keys = [number(w) for w in words] if action in ONCE else words
        assert len(set(keys)) == len(keys), action
    marks = sorted(f"{action}:{word}" for action in ("mark", "mark_inside") for word in log[action])
    assert sorted(head.description.split()[1:]) == marks
    assert [v.number for v in versions] == list(range(head.latest, 0, -1))
    assert sorted(v.note for v in versions[:-1]) == sorted(log["version"])
    labels = [concept.label, *(h.label for h in concept.history)]
    assert sorted(labels) == sorted(log["label"])
    assert sorted(n for n in names if n.startswith("wanted")) == sorted(
        f"wanted {number(w)}" for w in log["claim"]
    )
    return log


@pytest.fixture
def links(world):
    with world.store.write() as tx:
        for n in range(N_EACH):  # each of another user: a new link ends the earlier ones of its user
            user = tx.users.add(User(new_id("usr"), f"linked {n}", now()))
            tx.links.add(f"lnk_{n}", user.id, "hash", now() + timedelta(hours=1))


def test_processes_that_write_at_once_lose_nothing(world, url, links):
    with writers(world, url, N_EACH) as started:
        reported = [json.loads(line) for process in started for line in process.communicate()[0].splitlines()]
        assert [p.returncode for p in started] == [0] * N_WRITERS
    log = check(world, url, reported)
    assert {a: len(words) for a, words in log.items()} == {
        **dict.fromkeys(ALWAYS, N_WRITERS * N_EACH),
        **dict.fromkeys(ONCE, N_EACH),
    }


def test_a_writer_that_is_killed_loses_nothing_that_it_had_committed(world, url, links):
    with writers(world, url, N_EACH) as started:
        victim, *others = started
        lines = [victim.stdout.readline() for _ in range(20)]
        victim.send_signal(signal.SIGKILL)
        lines += [line for line in victim.communicate()[0].splitlines() if line.endswith("]")]
        for process in others:
            lines += process.communicate()[0].splitlines()
            assert process.returncode == 0
    log = check(world, url, [json.loads(line) for line in lines])
    assert all(len(log[action]) >= len(others) * N_EACH for action in ALWAYS)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(st.lists(st.booleans(), max_size=6), min_size=2, max_size=4))
def test_threads_of_one_store_lose_nothing_either(world, plans):
    # True: read outside and expect that version; False: whatever is there.
    with world.store.write() as tx:
        model = tx.models.add(world.another_model(new_id("x")))
    refused = []

    def change(plan):
        for careful in plan:
            with world.store.read() as tx:
                seen = tx.models.get(model.id).version
            try:
                with world.store.write() as tx:
                    tx.models.update(model.id, seen if careful else None, state="ready")
            except StaleVersion:
                refused.append(seen)

    threads = [threading.Thread(target=change, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with world.store.read() as tx:
        assert tx.models.get(model.id).version == 1 + sum(map(len, plans)) - len(refused)


def test_two_admins_who_remove_each_other_at_once_leave_one(world):
    a, b = world.user.id, world.other.id
    for _ in range(5):
        with world.store.write() as tx:
            project = tx.projects.add(Project(new_id("prj"), new_id("x"), now()))
            tx.members.put(Member(project.id, a, "admin"))
            tx.members.put(Member(project.id, b, "admin"))
        barrier, outcomes = threading.Barrier(2), []

        def remove(user_id, project_id=project.id, barrier=barrier, outcomes=outcomes):
            barrier.wait()
            try:
                with world.store.write() as tx:
                    tx.members.delete(project_id, user_id)
                outcomes.append("removed")
            except Conflict:
                outcomes.append("refused")

        threads = [threading.Thread(target=remove, args=(u,)) for u in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused", "removed"]
        with world.store.read() as tx:
            assert [m.role for m in tx.members.list(project.id).items] == ["admin"]


def test_a_reader_sees_one_moment_whatever_is_written_meanwhile(world):
    with world.store.read() as tx:
        assert tx.users.get(world.other.id) == world.other
        with world.store.write() as writing:
            writing.users.update(world.other.id, name="Robert")
            writing.users.delete(world.user.id)
        assert tx.users.get(world.other.id) == world.other
        assert len(tx.users.list().items) == 2
    with world.store.read() as tx:
        assert tx.users.get(world.other.id).name == "Robert"
        with pytest.raises(UnknownUser):
            tx.users.get(world.user.id)
