"""Stages claimed and run, one after the other, until none is due."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fulcrum.domain.errors import (
    FulcrumError,
    InternalError,
    JobCancelled,
    LeaseLost,
    ServiceUnavailable,
    Unavailable,
)
from fulcrum.domain.jobs import FINISHED, JobKind, JobQueue, JobRecord, JobTask, QueueName, ShardResult
from fulcrum.store.job_tasks import words_of
from fulcrum.store.transaction import Transaction
from fulcrum.telemetry import logger
from fulcrum.worker.held import Draining, Held, Stopping, Terms
from fulcrum.worker.machine import Machine
from fulcrum.worker.work import Handler

# How often a finished stage is tried to be written while the store is away, before it is left to its lease.
_WRITE_TRIES, _WRITE_WAIT_S = 20, 0.5
_TRY_AGAIN_S = 5.0
_SHOWN = 2000  # characters of an error that its job keeps

Handlers = Mapping[JobKind, Handler]
Write = Callable[[Transaction], None]

log = logger(__name__)


class Runner:
    """Runs what is due in this process."""

    def __init__(
        self,
        machine: Machine,
        handlers: Handlers,
        *,
        queue: JobQueue | None = None,
        terms: Terms | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        """`queue` hears of stages that others could run; None where nobody else is."""
        self.machine, self.handlers, self.queue = machine, handlers, queue
        self.terms, self.stopping = terms or Terms(), stopping or Stopping()

    def run_until_idle(self, queues: Sequence[QueueName] = ("gpu", "cpu")) -> int:
        """Run stages until none is due or the worker shall stop; how many were run."""
        n = 0
        while not self.stopping.asked and (task := self._claim(queues)) is not None:
            self.run(task)
            n += 1
        self.machine.rest()
        return n

    def run(self, task: JobTask) -> None:
        """Run one stage that this machine has claimed, to whatever end."""
        with self.machine.store.read() as tx:
            job = tx.jobs.get(task.job_id)
        started = time.monotonic()
        log.info(
            "stage begins",
            job_id=job.id,
            kind=job.kind,
            stage=task.stage,
            number=task.number,
            attempt=task.attempt,
        )
        held = Held(self.machine, task, job, self.terms, self.stopping)
        try:
            with held:
                written = self._outcome(held, task, job)
            self._write(task, written)
        except LeaseLost as error:
            log.warning("stage lost", job_id=job.id, stage=task.stage, number=task.number, error=str(error))
        self._clear(job.id)
        log.info(
            "stage ends",
            job_id=job.id,
            stage=task.stage,
            number=task.number,
            seconds=time.monotonic() - started,
        )

    def _outcome(self, held: Held, task: JobTask, job: JobRecord) -> Write:
        """What has to be written about the stage. Raises LeaseLost when that is nothing."""
        try:
            return self._run_stage(held, task, job)
        except LeaseLost:
            raise
        except JobCancelled:
            held.log("cancelled")
            return lambda tx: tx.job_tasks.acknowledge_cancel(task)
        except Draining:
            held.log("the worker stops: another one goes on")
            return lambda tx: tx.job_tasks.give_back(task, forgiven=True)
        except Unavailable as error:
            return self._again_or_failed(held, task, error)
        except OSError as error:  # a full disk, a folder on another machine that is gone
            return self._again_or_failed(held, task, ServiceUnavailable(f"{words_of(task)}: {error}"))
        except FulcrumError as error:
            return _failed(held, task, error)
        except Exception as error:
            log.exception("stage failed", job_id=job.id, stage=task.stage, number=task.number)
            name = type(error).__name__
            return _failed(
                held, task, InternalError(f"{words_of(task)} failed with {name}; the worker's log has more")
            )

    def _run_stage(self, held: Held, task: JobTask, job: JobRecord) -> Write:
        handler = self.handlers.get(job.kind)
        if handler is None:
            raise InternalError(f"this worker has no handler for jobs of the kind {job.kind!r}")
        match task.stage:
            case "plan":
                shards = handler.plan(held)
                known = self._known([s.key for s in shards])
                return lambda tx: tx.job_tasks.finish_plan(task, shards, known)
            case "shard":
                if (sha256 := self._known([task.key]).get(task.key)) is not None:
                    return lambda tx: tx.job_tasks.finish_shard(task, sha256, reused=True)
                computed = self.machine.artifacts.put_bytes(handler.run_shard(held, task.shard))
                return lambda tx: tx.job_tasks.finish_shard(task, computed)
            case "reduce":
                with self.machine.store.read() as tx:
                    results: list[ShardResult] = tx.job_tasks.results(job.id)
                result: dict[str, Any] = handler.reduce(held, results)
                return lambda tx: tx.job_tasks.finish_reduce(task, result)

    def _known(self, keys: Sequence[str]) -> dict[str, str]:
        """Stored results whose bytes are there; the others are forgotten."""
        with self.machine.store.read() as tx:
            known = tx.job_tasks.known_results(keys)
        gone = [key for key, sha256 in known.items() if not self.machine.artifacts.exists(sha256)]
        if gone:
            with self.machine.store.write() as tx:
                for key in gone:
                    tx.job_tasks.forget_result(key)
        return {key: sha256 for key, sha256 in known.items() if key not in gone}

    def _again_or_failed(self, held: Held, task: JobTask, error: Unavailable) -> Write:
        with self.machine.store.read() as tx:
            left = tx.job_tasks.attempts_left(task)
        if left == 0:
            return _failed(held, task, error)
        wait_s = _TRY_AGAIN_S if error.retry_after_s is None else error.retry_after_s
        held.log(f"{error.reason}: {error}; tried again in {wait_s:g} s", "warning")
        return lambda tx: tx.job_tasks.give_back(task, wait_s=wait_s)

    def _claim(self, queues: Sequence[QueueName]) -> JobTask | None:
        terms = self.terms
        with self.machine.store.write() as tx:
            return tx.job_tasks.claim(queues, self.machine.name, terms.lease_s, terms.max_running_per_user)

    def _write(self, task: JobTask, write: Write) -> None:
        """One transaction, tried again while the store is away: the work is done, and worth the wait."""
        for left in range(_WRITE_TRIES, -1, -1):
            try:
                with self.machine.store.write() as tx:
                    write(tx)
                    ready = dict(tx.jobs.newly_ready)
                break
            except Unavailable as error:
                if left == 0:
                    log.error("a finished stage could not be written", job_id=task.job_id, error=str(error))
                    return
                time.sleep(_WRITE_WAIT_S)
        if self.queue is not None:
            wake(self.queue, ready)

    def _clear(self, job_id: str) -> None:
        with self.machine.store.read() as tx:
            state = tx.jobs.get(job_id).state
        if state in FINISHED:
            self.machine.remove_folder(job_id)


def wake(queue: JobQueue, ready: Mapping[QueueName, int]) -> None:
    """Wake as many workers as there is work for; the reconciler does it later when the broker is away."""
    for name, n in ready.items():
        if n > 0:
            try:
                queue.wake(name, n)
            except Unavailable as error:
                log.warning("nobody could be woken", queue=name, error=str(error))


def _failed(held: Held, task: JobTask, error: FulcrumError) -> Write:
    # A file's name may hold what no database takes.
    text = f"{error.reason}: {error}"[:_SHOWN].replace("\x00", "").encode("utf-8", "replace").decode()
    held.log(text, "error")
    return lambda tx: tx.job_tasks.fail(task, text)
