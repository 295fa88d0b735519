"""Stages of jobs in the hands of workers: claimed by compare-and-set, held by leases, finished once."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Connection, Table, and_, case, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql import ColumnElement

from fulcrum.domain.errors import LeaseLost, TooManyAttempts
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import JobProgress, JobRecord, JobTask, QueueName, Shard, ShardResult
from fulcrum.store.columns import Base
from fulcrum.store.jobs import TASKS, Jobs, JobTaskRow
from fulcrum.store.repository import Access

MAX_ATTEMPTS = 3
_CLAIMS = 0x66756C63  # PostgreSQL's lock under which claims are made one after the other
_FEW = 500  # values in one statement: both databases bound their number


class ShardResultRow(Base):
    """Where the result of a shard lies, whichever job computed it."""

    __tablename__ = "shard_results"
    key: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]


RESULTS = cast(Table, ShardResultRow.__table__)
_FIELDS = (
    "job_id", "stage", "number", "key", "content", "state", "attempt", "worker", "lease_expires_at",
    "result_sha256",
)  # fmt: skip


class JobTasks(Access):
    """Stages. Every verb with a `task` raises LeaseLost when it is no longer in these hands."""

    def __init__(self, connection: Connection, jobs: Jobs) -> None:
        super().__init__(connection, JobTaskRow, "stage of a job")
        self._jobs = jobs

    def claim(
        self, queues: Sequence[QueueName], worker: str, lease_s: float, max_running_per_user: int
    ) -> JobTask | None:
        """The stage that is due, now in the hands of `worker`; None when there is none.

        Due is, among those of users below the limit, one of the user with the fewest running; of these the oldest.
        """
        if self._connection.dialect.name == "postgresql":
            # Two claims at once would both see the same counts and share unfairly.
            self._connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _CLAIMS})
        t = TASKS.c
        due = self._due(queues, max_running_per_user)
        while True:
            found = self._connection.execute(due).first()
            if found is None:
                return None
            job = self._jobs.locked(found.job_id)
            taken = self._write(
                update(TASKS)
                .where(self._is(found), t.state == "ready", t.attempt == found.attempt)
                .values(
                    state="running",
                    attempt=found.attempt + 1,
                    worker=worker,
                    lease_expires_at=now() + timedelta(seconds=lease_s),
                    fraction=0.0,
                )
            )
            if taken.rowcount == 0:  # cancelled meanwhile
                continue
            if job.state == "queued":
                self._jobs.set(job.id, state="running", started_at=job.started_at or now())
            return self._get(found)

    def renew(
        self,
        task: JobTask,
        lease_s: float,
        progress: JobProgress | None = None,
        *,
        kept: bool = False,
    ) -> bool:
        """Hold it for longer and tell how far it is; whether the job shall be cancelled.

        `kept`: what this attempt did will not be lost with it, so that those before it no longer count.
        """
        job = self._jobs.locked(task.job_id)
        values: dict[str, Any] = {"lease_expires_at": now() + timedelta(seconds=lease_s)}
        if progress is not None and progress.total > 0:
            values["fraction"] = min(max(progress.done / progress.total, 0.0), 1.0)
        if kept:
            values["n_forgiven"] = task.attempt - 1
        self._change(task, values)
        if progress is not None:
            self._jobs.set(task.job_id, progress=self._overall(job, task, progress))
        return job.cancel_requested

    def finish_plan(self, task: JobTask, shards: Sequence[Shard], known: Mapping[str, str]) -> None:
        """The shards are ready, without those whose result is `known` (key to hash); the reduce if that is all."""
        job = self._jobs.locked(task.job_id)
        self._change(task, {"state": "done"})
        self._jobs.add_tasks(job, "shard", [(s.key, s.content) for s in shards], waiting=True)
        t, n_reused = TASKS.c, 0
        for number, shard in enumerate(shards):
            if shard.key in known:
                mine = and_(t.job_id == job.id, t.stage == "shard", t.number == number)
                values = {"state": "done", "result_sha256": known[shard.key]}
                self._write(update(TASKS).where(mine).values(**values))
                n_reused += 1
        self._jobs.set(job.id, n_shards=len(shards), n_shards_done=n_reused, n_shards_reused=n_reused)
        if self._jobs.end_if_cancelled(job.id):
            return
        ready = update(TASKS).where(t.job_id == job.id, t.state == "waiting").values(state="ready")
        self._jobs.newly_ready[job.queue] += self._write(ready).rowcount
        if n_reused == len(shards):
            self._jobs.add_tasks(job, "reduce", [("", {})])

    def finish_shard(self, task: JobTask, sha256: str, *, reused: bool = False) -> None:
        """Its result is kept for everybody who needs the same; after the last one the reduce is ready."""
        job = self._jobs.locked(task.job_id)
        kept = self.keep_result(task.key, sha256)
        self._change(task, {"state": "done", "result_sha256": kept, "fraction": 0.0})
        n_done = job.n_shards_done + 1
        self._jobs.set(job.id, n_shards_done=n_done, n_shards_reused=job.n_shards_reused + reused)
        if not self._jobs.end_if_cancelled(job.id) and not job.cancel_requested and n_done == job.n_shards:
            self._jobs.add_tasks(job, "reduce", [("", {})])

    def finish_reduce(self, task: JobTask, result: dict[str, Any]) -> None:
        """The job has succeeded, also when somebody wanted it cancelled a moment ago: its records are written."""
        job = self._jobs.locked(task.job_id)
        self._change(task, {"state": "done"})
        self._jobs.set(job.id, cancel_requested=False)
        self._jobs.end(job.id, "succeeded", result=result)

    def fail(self, task: JobTask, error: str) -> None:
        """The whole job fails with it."""
        self._jobs.locked(task.job_id)
        self._change(task, {"state": "ended"})
        self._jobs.end(task.job_id, "failed", error=error)

    def acknowledge_cancel(self, task: JobTask) -> None:
        """It ends because the job was cancelled."""
        self._jobs.locked(task.job_id)
        self._change(task, {"state": "ended"})
        self._jobs.end_if_cancelled(task.job_id)

    def give_back(self, task: JobTask, *, wait_s: float = 0.0, forgiven: bool = False) -> None:
        """Somebody else may take it, `wait_s` from now; `forgiven`: this attempt does not count."""
        job = self._jobs.locked(task.job_id)
        values: dict[str, Any] = {"state": "ready", "worker": None, "lease_expires_at": None, "fraction": 0.0}
        values["not_before"] = now() + timedelta(seconds=wait_s) if wait_s else None
        if forgiven:
            values["n_forgiven"] = TASKS.c.n_forgiven + 1
        self._change(task, values)
        if job.cancel_requested:
            ended = update(TASKS).where(self._is(task)).values(state="ended")
            self._write(ended)
            self._jobs.end_if_cancelled(job.id)
        elif not wait_s:
            self._jobs.newly_ready[job.queue] += 1

    def attempts_left(self, task: JobTask) -> int:
        """How many more times it may be tried when this attempt ends badly."""
        t = TASKS.c
        used = self._connection.execute(
            select(t.attempt - t.n_forgiven).where(self._is(task))
        ).scalar_one_or_none()
        return 0 if used is None else max(MAX_ATTEMPTS - int(used), 0)

    def take_over(self) -> int:
        """Frees what workers held that gave no sign of life, and fails what has lost too many; how many stages."""
        t = TASKS.c
        expired = self._connection.execute(
            select(TASKS).where(t.state == "running", t.lease_expires_at < now()).order_by(t.job_id, t.number)
        ).all()
        n_freed = 0
        for row in expired:
            job = self._jobs.locked(row.job_id)
            current = self._connection.execute(select(TASKS).where(self._is(row))).one()
            if current.state != "running" or current.lease_expires_at != row.lease_expires_at:
                continue  # renewed, or its job has ended
            task, n_freed = self._get(row), n_freed + 1
            if not job.cancel_requested and self.attempts_left(task) == 0:
                error = TooManyAttempts(
                    f"{words_of(task)} was begun {MAX_ATTEMPTS} times and its worker was lost each time, at last "
                    f"{task.worker}: it may need more memory than there is"
                )
                self.fail(task, f"{error.reason}: {error}")
            else:
                self.give_back(task)
        return n_freed

    def n_ready(self, queue: QueueName) -> int:
        """Stages that a worker of the queue could claim now, if their users are below their limit."""
        t = TASKS.c
        query = select(func.count()).where(t.queue == queue, t.state == "ready", _is_time())
        return int(self._connection.execute(query).scalar_one())

    def next_due_s(self, queues: Sequence[QueueName]) -> float | None:
        """Seconds until a stage that waits after a failed try may be claimed; None when none waits."""
        t = TASKS.c
        query = select(func.min(t.not_before)).where(
            t.queue.in_(queues), t.state == "ready", t.not_before.is_not(None)
        )
        at = self._connection.execute(query).scalar_one_or_none()
        return None if at is None else max((at - now()).total_seconds(), 0.0)

    def known_results(self, keys: Sequence[str]) -> dict[str, str]:
        """Hashes of the stored results of shards, by key."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), _FEW):
            r = RESULTS.c
            query = select(r.key, r.sha256).where(r.key.in_(keys[start : start + _FEW]))
            found.update({row.key: row.sha256 for row in self._connection.execute(query)})
        return found

    def keep_result(self, key: str, sha256: str) -> str:
        """The hash that is kept for the key: the first that came."""
        # The same words on both databases; a savepoint and an error would cost more than this.
        make = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        self._write(make(RESULTS).values(key=key, sha256=sha256).on_conflict_do_nothing())
        return self.known_results([key])[key]

    def forget_result(self, key: str) -> None:
        """Drop a result whose bytes are gone."""
        self._write(RESULTS.delete().where(RESULTS.c.key == key))

    def results(self, job_id: str) -> list[ShardResult]:
        """What the shards of a job left, in the order of the plan."""
        t = TASKS.c
        query = select(TASKS).where(t.job_id == job_id, t.stage == "shard").order_by(t.number)
        rows = self._connection.execute(query).all()
        return [ShardResult(Shard(r.key, r.content), r.result_sha256) for r in rows]

    def _due(self, queues: Sequence[QueueName], max_running_per_user: int) -> Any:
        t = TASKS.c
        running = (
            select(t.user_id, func.count().label("n"))
            .where(t.queue.in_(queues), t.state == "running")
            .group_by(t.user_id)
            .subquery()
        )
        n_running = func.coalesce(running.c.n, 0)
        order = case((t.stage == "plan", 0), (t.stage == "shard", 1), else_=2)
        return (
            select(t.job_id, t.stage, t.number, t.attempt)
            .select_from(TASKS.outerjoin(running, running.c.user_id == t.user_id))
            .where(t.queue.in_(queues), t.state == "ready", n_running < max_running_per_user, _is_time())
            .order_by(n_running, t.created_at, t.job_id, order, t.number)
            .limit(1)
        )

    def _is(self, task: Any) -> ColumnElement[bool]:
        t = TASKS.c
        return and_(t.job_id == task.job_id, t.stage == task.stage, t.number == task.number)

    def _change(self, task: JobTask, values: dict[str, Any]) -> None:
        t = TASKS.c
        mine = and_(self._is(task), t.state == "running", t.attempt == task.attempt, t.worker == task.worker)
        if self._write(update(TASKS).where(mine).values(**values)).rowcount == 0:
            raise LeaseLost(f"{words_of(task)} is no longer in the hands of {task.worker}")

    def _get(self, task: Row[Any]) -> JobTask:
        row = self._connection.execute(select(TASKS).where(self._is(task))).one()
        return JobTask(**{name: row._mapping[name] for name in _FIELDS})

    def _overall(self, job: JobRecord, task: JobTask, progress: JobProgress) -> JobProgress:
        """Of the job: shards count alike, also those that others compute at the same time."""
        if task.stage != "shard" or job.n_shards <= 1:
            return progress
        t = TASKS.c
        running, under_way = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(t.fraction), 0.0)).where(
                t.job_id == job.id, t.stage == "shard", t.state == "running"
            )
        ).one()
        total = progress.total * job.n_shards
        done = (job.n_shards_done + float(under_way)) * progress.total
        rate = None if progress.rate_per_s is None else progress.rate_per_s * int(running)
        eta = (total - done) / rate if rate else None
        return JobProgress(progress.what, done, total, progress.unit, rate, eta)


def _is_time() -> ColumnElement[bool]:
    not_before = TASKS.c.not_before
    return or_(not_before.is_(None), not_before <= now())


def words_of(task: JobTask) -> str:
    """A stage in words, for messages."""
    part = f"shard {task.number} of job" if task.stage == "shard" else f"the {task.stage} of job"
    return f"{part} {task.job_id}"
