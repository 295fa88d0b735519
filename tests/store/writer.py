"""A process that writes at random and says what it wrote: `python writer.py URL NAME SEED N WORLD-AS-JSON`.

It starts when a line comes in, and prints one JSON line for each transaction once it was committed.
"""

import json
import random
import sys

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import AlreadyExists, Conflict, StaleVersion
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ConceptRecord, CorrectionVersion, Project
from fulcrum.store.database import open_store


def mark(store, who, ids, word):
    """Optimistically: read in one transaction, change in another, again when somebody was faster."""
    while True:
        with store.read() as tx:
            seen = tx.corrections.get(ids["correction"])
        try:
            with store.write() as tx:
                text = f"{seen.description} mark:{word}"
                tx.corrections.update(seen.id, seen.version, description=text)
                tx.audit.append(who, "mark", word)
            return True
        except StaleVersion:
            continue


def mark_inside(store, who, ids, word):
    """Read and write in one transaction: on SQLite it has the lock, on PostgreSQL the version decides."""
    while True:
        try:
            with store.write() as tx:
                seen = tx.corrections.get(ids["correction"])
                text = f"{seen.description} mark_inside:{word}"
                tx.corrections.update(seen.id, seen.version, description=text)
                tx.audit.append(who, "mark_inside", word)
            return True
        except StaleVersion:
            continue


def version(store, who, ids, word):
    """A new version of a correction, whatever was there."""
    gain = int(word.split("-")[1]) + random.Random(word).random()
    content = Correction("a" * 64, "c" * 64, "visual.blocks.6.resid_post", (Scale(1, gain),))
    with store.write() as tx:
        tx.corrections.add_version(
            ids["correction"],
            None,
            CorrectionVersion(ids["correction"], 0, content.sha256, content, ids["user"], now(), word),
        )
        tx.audit.append(who, "version", word)
    return True


def label(store, who, ids, word):
    """A label over whatever label there is."""
    with store.write() as tx:
        tx.concepts.put(
            ConceptRecord(new_id("con"), ids["project"], ids["sae"], 99, ids["user"], now(), word)
        )
        tx.audit.append(who, "label", word)
    return True


def claim(store, who, ids, word):
    """A project name that all writers want: one gets it."""
    try:
        with store.write() as tx:
            tx.projects.add(Project(new_id("prj"), f"wanted {word.split('-')[1]}", now()))
            tx.audit.append(who, "claim", word)
        return True
    except AlreadyExists:
        return False


def redeem(store, who, ids, word):
    """A login link that all writers have: it works for one."""
    with store.write() as tx:
        found = tx.links.redeem(f"lnk_{word.split('-')[1]}")
        if found is not None:
            tx.audit.append(who, "redeem", word)
    return found is not None


def begin(store, who, ids, word):
    """An idempotency key that all writers send: one does the work."""
    try:
        with store.write() as tx:
            mine = tx.idempotency.begin(ids["user"], word.split("-")[1], "print") is None
            assert mine
            tx.audit.append(who, "begin", word)
        return True
    except Conflict:
        return False


ACTIONS = {f.__name__: f for f in (mark, mark_inside, version, label, claim, redeem, begin)}


def main() -> None:
    """Write."""
    url, who, seed, n, ids = sys.argv[1:]
    chance = random.Random(int(seed))
    plan = [(name, f"{who}-{i}") for name in ACTIONS for i in range(int(n))]
    chance.shuffle(plan)
    with open_store(url) as store:
        store.ping()
        print(json.dumps("ready"), flush=True)
        sys.stdin.readline()
        for name, word in plan:
            done = ACTIONS[name](store, who, json.loads(ids), word)
            print(json.dumps([name, word, done]), flush=True)


if __name__ == "__main__":
    main()
