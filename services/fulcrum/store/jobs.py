"""Jobs: rows that are the truth about what is asked, runs and is done. Their stages are in `job_tasks`.

Whatever changes a job locks its row first and those that wait for it in the order of their ids, so that workers of
PostgreSQL never wait for each other in a circle; SQLite has one writer at a time anyway.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, ForeignKey, Index, Table, and_, func, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import JobFinished, JobUnfinished, NeededJobFailed, NotFound, UnknownJob
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import ARTIFACT, FINISHED, JobRecord, JobState, QueueName, Stage
from fulcrum.store.columns import Base, Kept, checked
from fulcrum.store.repository import Listing


class JobRow(Kept, Base):
    """A job."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "key"),
        Index(None, "state", "finished_at"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str]
    spec: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    queue: Mapped[str]
    state: Mapped[str]
    key: Mapped[str | None]
    cancel_requested: Mapped[bool]
    progress: Mapped[dict[str, Any] | None]
    n_shards: Mapped[int]
    n_shards_done: Mapped[int]
    n_shards_reused: Mapped[int]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    after: Mapped[list[Any]]
    version: Mapped[int]
    n_events: Mapped[int]  # the number of the last one


class JobNeedRow(Base):
    """A job that must have succeeded before another one starts."""

    __tablename__ = "job_needs"
    __table_args__ = (Index(None, "needed_id"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    needed_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)


class JobTaskRow(Base):
    """A stage. Queue, user and time are those of the job, here so that the next task is found in one table."""

    __tablename__ = "job_tasks"
    __table_args__ = (
        Index(None, "queue", "state", "user_id"),
        Index(None, "state", "lease_expires_at"),
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str]
    content: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempt: Mapped[int]
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    result_sha256: Mapped[str | None]
    queue: Mapped[str]
    user_id: Mapped[str]
    created_at: Mapped[datetime]
    not_before: Mapped[datetime | None]  # a failed try waits
    n_forgiven: Mapped[int]  # attempts that ended for no fault of the task
    fraction: Mapped[float]  # of the running attempt


TASKS = cast(Table, JobTaskRow.__table__)
NEEDS = cast(Table, JobNeedRow.__table__)


class Jobs(Listing[JobRecord]):
    """Jobs as wholes. `newly_ready` counts the stages that became claimable in this transaction."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, JobRow, JobRecord, UnknownJob, "job")
        self.newly_ready: Counter[QueueName] = Counter()

    def add(self, record: JobRecord) -> JobRecord:
        """Keep a new job, ready to be claimed when what it comes `after` has succeeded; failed if that failed.

        Raises UnknownJob for one that it comes after and the project does not have; NotFound, AlreadyExists.
        """
        assert record.state == "queued"
        needed = {id: self.locked(id) for id in sorted(set(record.after))}
        for id, other in needed.items():
            if other.project_id != record.project_id:
                raise self._not_found(id)
        self._insert(self._values_of(record) | {"n_events": 0}, f"job {record.id}")
        for id in needed:
            self._write(insert(NEEDS).values(job_id=record.id, needed_id=id))
        self.add_tasks(record, "plan", [("", {})], waiting=True)
        self._settle(record.id)
        return self.get(record.id)

    def by_key(self, project_id: str, key: str) -> JobRecord | None:
        """The project's newest job of this content that succeeded or still may; None if there is none."""
        c = self._table.c
        query = (
            select(self._table)
            .where(
                c.project_id == checked("project_id", project_id),
                c.key == checked("key", key),
                c.state.in_(("queued", "running", "succeeded")),
                c.cancel_requested.is_(False),
            )
            .order_by((c.state == "succeeded").desc(), c.created_at.desc())
        )
        row = self._connection.execute(query.limit(1)).first()
        return None if row is None else self._from_row(row)

    def n_unfinished(self, user_id: str) -> int:
        """Jobs of a user that are not finished."""
        c = self._table.c
        query = select(func.count()).where(c.created_by == user_id, c.state.not_in(FINISHED))
        return int(self._connection.execute(query).scalar_one())

    def cancel(self, id: str) -> JobRecord:
        """Ask it to end: at once where nothing runs, else at the next sign of life of what runs.

        Raises UnknownJob, JobFinished.
        """
        job = self.locked(id)
        if job.state in FINISHED:
            raise JobFinished(f"job {id} is {job.state} already")
        self.set(id, cancel_requested=True)
        t = TASKS.c
        self._write(
            update(TASKS).where(t.job_id == id, t.state.in_(("waiting", "ready"))).values(state="ended")
        )
        self.end_if_cancelled(id)
        return self.get(id)

    def retry(self, id: str) -> JobRecord:
        """Queue a failed or cancelled job again; stored shards stay done. Raises UnknownJob, JobUnfinished."""
        job = self.locked(id)
        if job.state not in ("failed", "cancelled"):
            raise JobUnfinished(f"job {id} is {job.state}: only a failed or cancelled one can be tried again")
        self.set(id, state="queued", cancel_requested=False, error=None, finished_at=None, progress=None)
        t = TASKS.c
        again = (
            update(TASKS)
            .where(t.job_id == id, t.state.in_(("ended", "running")))
            .values(state="waiting", n_forgiven=t.attempt, not_before=None, worker=None)
        )
        self._write(again)
        self._settle(id)
        return self.get(id)

    def position(self, job: JobRecord) -> int | None:
        """Place in the queue, 1 for the next to start; None where it does not stand in one.

        The order in which idle workers would take the first stages if nothing finished: the user with the fewest
        running and earlier stages first, then the oldest job.
        """
        if job.state != "queued":
            return None
        t = TASKS.c
        ready = self._connection.execute(
            select(t.job_id, t.user_id, t.created_at, func.count().label("n"))
            .where(t.queue == job.queue, t.state == "ready")
            .group_by(t.job_id, t.user_id, t.created_at)
            .order_by(t.created_at, t.job_id)
        ).all()
        before: Counter[str] = Counter(self.n_running(job.queue))
        order = []
        for row in ready:
            order.append((before[row.user_id], row.created_at, row.job_id))
            before[row.user_id] += row.n
        ids = [id for _, _, id in sorted(order)]
        return ids.index(job.id) + 1 if job.id in ids else None

    def n_running(self, queue: QueueName) -> dict[str, int]:
        """Stages at work by user."""
        t = TASKS.c
        query = (
            select(t.user_id, func.count()).where(t.queue == queue, t.state == "running").group_by(t.user_id)
        )
        return {user: int(n) for user, n in self._connection.execute(query)}

    def counts(self) -> dict[tuple[QueueName, JobState], int]:
        """Jobs by queue and state."""
        c = self._table.c
        query = select(c.queue, c.state, func.count()).group_by(c.queue, c.state)
        return {(queue, state): int(n) for queue, state, n in self._connection.execute(query)}

    def finished_among(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that belong to finished jobs or to none."""
        asked, c = sorted(set(ids)), self._table.c
        query = select(c.id).where(c.id.in_(asked), c.state.not_in(FINISHED))
        return set(asked) - set(self._connection.execute(query).scalars())

    def locked(self, id: str) -> JobRecord:
        """The job, which nobody else changes until the end of the transaction. Raises UnknownJob."""
        row = self._connection.execute(
            select(self._table).where(self._table.c.id == checked("id", id)).with_for_update()
        ).first()
        if row is None:
            raise self._not_found(id)
        return self._from_row(row)

    def archives_done_with(self, before: datetime) -> set[str]:
        """Hashes of uploaded archives all of whose imports have ended before a time."""
        c = self._table.c
        rows = self._connection.execute(
            select(c.spec, c.state, c.finished_at).where(c.kind == "import_dataset")
        )
        done: set[str] = set()
        needed: set[str] = set()
        for row in rows:
            ended = row.state in FINISHED and row.finished_at is not None and row.finished_at < before
            (done if ended else needed).add(str(row.spec["source"]))
        return {s.removeprefix(ARTIFACT) for s in done - needed if s.startswith(ARTIFACT)}

    def set(self, id: str, **changes: Any) -> None:
        """Change fields of a locked job."""
        c = self._table.c
        self._write(
            update(self._table).where(c.id == id).values(**self._values(changes), version=c.version + 1)
        )

    def end(
        self, id: str, state: JobState, *, error: str | None = None, result: dict[str, Any] | None = None
    ) -> None:
        """Finish a locked job: its other stages end, the jobs that wait for it become ready or fail."""
        self.set(id, state=state, error=error, result=result, finished_at=now())
        t = TASKS.c
        self._write(
            update(TASKS)
            .where(t.job_id == id, t.state.in_(("waiting", "ready", "running")))
            .values(state="ended", worker=None, lease_expires_at=None)
        )
        n = NEEDS.c
        waiting = select(n.job_id).where(n.needed_id == id).order_by(n.job_id)
        for dependent in self._connection.execute(waiting).scalars().all():
            if self.locked(dependent).state == "queued":
                self._settle(dependent)

    def end_if_cancelled(self, id: str) -> bool:
        """Finish a locked job as cancelled when that was asked and nothing of it runs; whether it was."""
        t = TASKS.c
        running = select(t.number).where(t.job_id == id, t.state == "running").limit(1)
        if not self.locked(id).cancel_requested or self._connection.execute(running).first() is not None:
            return False
        self.end(id, "cancelled", error="JOB_CANCELLED: the job was cancelled")
        return True

    def add_tasks(
        self, job: JobRecord, stage: Stage, parts: list[tuple[str, dict[str, Any]]], *, waiting: bool = False
    ) -> None:
        """Stages of a locked job, (key, content) each, numbered in their order."""
        common = {
            "job_id": job.id,
            "stage": stage,
            "state": "waiting" if waiting else "ready",
            "attempt": 0,
            "queue": job.queue,
            "user_id": job.created_by,
            "created_at": job.created_at,
            "n_forgiven": 0,
            "fraction": 0.0,
        }
        rows = [
            {**common, "number": i, "key": key, "content": content} for i, (key, content) in enumerate(parts)
        ]
        if rows:
            self._connection.execute(insert(TASKS), rows)
        if not waiting:
            self.newly_ready[job.queue] += len(rows)

    def _settle(self, id: str) -> None:
        """A queued job whose needs are met becomes ready; it fails when one of them cannot be met any more."""
        job = self.get(id)
        for needed in job.after:
            other = self.get(needed)
            if other.state in ("failed", "cancelled"):
                error = NeededJobFailed(
                    f"job {needed} ({other.kind}) had to succeed first and is {other.state}"
                    + (f": {other.error}" if other.error and other.state == "failed" else "")
                )
                self.end(id, "failed", error=f"{error.reason}: {error}")
                return
            if other.state != "succeeded":
                return
        t = TASKS.c
        ready = update(TASKS).where(and_(t.job_id == id, t.state == "waiting")).values(state="ready")
        self.newly_ready[job.queue] += self._write(ready).rowcount

    def settle_waiting(self) -> None:
        """For the reconciler: everything whose needs are met or cannot be met any more."""
        t = TASKS.c
        waiting = select(t.job_id).where(t.state == "waiting").distinct().order_by(t.job_id)
        for id in self._connection.execute(waiting).scalars().all():
            if self.locked(id).state == "queued":
                self._settle(id)

    def _not_found(self, id: str) -> NotFound:
        return UnknownJob(f"no job with the id {id[:80]!r}")
