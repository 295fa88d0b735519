"""Removes what imports kept that failed or were cancelled, and that nobody names."""

import re
from collections.abc import Iterable
from datetime import timedelta

from fulcrum.domain.errors import UnknownArtifact
from fulcrum.domain.identifiers import now
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store

# Between dooming and removing: who read before what was doomed then has written since, also with a clock that is off.
SLACK = timedelta(minutes=10)
_AT_ONCE = 20_000  # of one look: nobody else is looked after meanwhile
_FEW = 10  # of one transaction, which holds the others up
_HASH = re.compile(rb"[0-9a-f]{64}")


def remove_leftovers(
    store: Store, artifacts: Artifacts, keep: timedelta, slack: timedelta = SLACK
) -> tuple[int, bool]:
    """How many contents were removed, and whether more may be due. `keep` is how long they outlive their import.

    Nothing goes that a manifest, an uploaded image or an unfinished import stands on. Raises UnknownArtifact and
    CorruptArtifact, and removes nothing, where a manifest cannot be read.
    """
    long_ago = now() - keep
    with store.read() as tx:
        left = tx.import_contents.left_by(long_ago)
    for job_id in left:
        with store.write() as tx:
            tx.import_contents.doom(job_id, long_ago, now())
    before = now() - slack
    with store.read() as tx:
        due = tx.import_contents.due(before, slack, _AT_ONCE)
        manifests = tx.dataset_versions.manifests() | tx.datasets.manifests() if due else set()
    # What becomes visible from here on was noted by its import, so its notes are no longer doomed.
    named = _named(artifacts, manifests, set(due))
    n = 0
    for start in range(0, len(due), _FEW):
        with store.write() as tx:
            taken = tx.import_contents.take(due[start : start + _FEW], before, slack) - named
            for sha256 in sorted(taken - tx.images.contents_among(taken)):
                # Inside the transaction: whoever notes or uploads the same bytes waits, and then finds them gone.
                try:
                    artifacts.delete(sha256)
                except UnknownArtifact:
                    continue  # by a worker that died before it could say so
                n += 1
    return n, len(due) == _AT_ONCE


def _named(artifacts: Artifacts, manifests: Iterable[str], wanted: set[str]) -> set[str]:
    """Those of the hashes that a manifest names, whatever as."""
    named: set[str] = set(manifests) & wanted
    for sha256 in manifests:
        found = {match.decode() for match in _HASH.findall(artifacts.read_bytes(sha256))}
        named |= found & wanted
    return named
