"""Looks after what nobody else does: lost wakes, dead workers, jobs that wait for others, things to be forgotten."""

from collections.abc import Sequence
from datetime import timedelta

from fulcrum.domain.errors import CorruptArtifact, UnknownArtifact
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import JobQueue, QueueName
from fulcrum.telemetry import logger
from fulcrum.worker.import_leftovers import remove_leftovers
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import wake

_FORGET_EVERY = timedelta(hours=1)

log = logger(__name__)


class Reconciler:
    """Any number of them may run, on any machine: each of their steps compares before it sets."""

    def __init__(
        self,
        machine: Machine,
        queue: JobQueue,
        queues: Sequence[QueueName],
        keep_events: timedelta,
        keep_archives: timedelta = timedelta(days=2),
    ) -> None:
        """`keep_archives`: how long an uploaded archive outlives its last import, and what was kept of one that failed
        or was cancelled outlives it: as long as it could be tried again.
        """
        self._machine, self._queue, self._queues = machine, queue, queues
        self._keep, self._keep_archives = keep_events, keep_archives
        self._forget_at = now()

    def look(self) -> None:
        """One look. Raises ServiceUnavailable while store or broker are away: look again later."""
        is_time = now() >= self._forget_at
        with self._machine.store.write() as tx:
            freed = tx.job_tasks.take_over()
            tx.jobs.settle_waiting()
            if is_time:
                self._forget_at = now() + _FORGET_EVERY
                tx.job_events.forget(now() - self._keep)
        if is_time:
            self._forget_archives()
            self._forget_leftovers()
        if freed:
            log.warning("work of lost workers was freed", n_stages=freed)
        with self._machine.store.read() as tx:
            ready = {name: tx.job_tasks.n_ready(name) for name in self._queues}
        # Wakes that wait already are enough: each of them works until nothing is due.
        wake(self._queue, {name: n for name, n in ready.items() if n and not self._queue.n_waiting(name)})
        self._machine.sweep()

    def _forget_archives(self) -> None:
        """Images were kept one by one: the archive that they came in would double what a data set takes."""
        with self._machine.store.read() as tx:
            done = tx.jobs.archives_done_with(now() - self._keep_archives)
        for sha256 in sorted(done):
            try:
                self._machine.artifacts.delete(sha256)
            except UnknownArtifact:
                continue  # since an earlier look, or by another worker
            log.info("an imported archive was removed", sha256=sha256)

    def _forget_leftovers(self) -> None:
        try:
            n, more = remove_leftovers(self._machine.store, self._machine.artifacts, self._keep_archives)
        except (UnknownArtifact, CorruptArtifact) as error:
            log.warning("what failed imports left is not removed", error=str(error))
            return
        if n:
            log.info("what failed imports left was removed", n_contents=n)
        if more:
            self._forget_at = now()
