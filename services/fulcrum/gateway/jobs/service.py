"""What happens to jobs that were asked for."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi.sse import ServerSentEvent

from fulcrum.domain.errors import UnknownJob
from fulcrum.domain.jobs import FINISHED, EventKind, JobEvent, JobRecord, JobStanding
from fulcrum.domain.records import Page, Role
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams, run_in_thread
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.reach import reach
from fulcrum.gateway.streams import event
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

LOOK_EVERY_S = 0.5
_EVENTS_AT_ONCE = 500


def find(asker: Asker, tx: Transaction, job_id: str, role: Role) -> JobRecord:
    """Raises UnknownJob, Forbidden."""
    return reach(asker, tx, tx.jobs, job_id, role, UnknownJob, "job")


def page(
    store: Store, asker: Asker, project_id: str | None, params: PageParams, **filters: str | None
) -> Page[JobRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.jobs.list(project_id=project, limit=params.limit, cursor=params.cursor, **filters)


def get(store: Store, asker: Asker, job_id: str) -> JobStanding:
    """Raises UnknownJob."""
    with store.read() as tx:
        job = find(asker, tx, job_id, "viewer")
        return JobStanding(job, tx.jobs.position(job))


def cancel(store: Store, asker: Asker, job_id: str) -> JobRecord:
    """Raises UnknownJob, JobFinished."""
    with store.write() as tx:
        find(asker, tx, job_id, "analyst")
        job = tx.jobs.cancel(job_id)
        tx.audit.append(asker.user.id, "job.cancel", job_id, {"kind": job.kind})
    return job


def retry(store: Store, asker: Asker, submitter: Submitter, job_id: str) -> JobRecord:
    """Raises UnknownJob, JobUnfinished."""
    with store.write() as tx:
        find(asker, tx, job_id, "analyst")
        job = tx.jobs.retry(job_id)
        tx.audit.append(asker.user.id, "job.retry", job_id, {"kind": job.kind})
    submitter.wake(job)
    return job


def events(store: Store, asker: Asker, job_id: str, kind: EventKind, params: PageParams) -> Page[JobEvent]:
    """Raises UnknownJob."""
    with store.read() as tx:
        find(asker, tx, job_id, "viewer")
        return tx.job_events.list(job_id, kind, limit=params.limit, cursor=params.cursor)


async def watch(store: Store, job_id: str, number: int) -> AsyncGenerator[ServerSentEvent]:
    """`state` whenever it changed, `log` and `metric` from after event `number`; `done` when the job ended."""

    def look(after: int) -> tuple[JobStanding, list[JobEvent]]:
        with store.read() as tx:
            job = tx.jobs.get(job_id)
            said = tx.job_events.after(job_id, after, limit=_EVENTS_AT_ONCE)
            return JobStanding(job, tx.jobs.position(job)), said

    shown: JobStanding | None = None
    while True:
        standing, said = await run_in_thread(look, number)
        for item in said:
            number = item.number
            yield event(item.kind, item).model_copy(update={"id": str(number)})
        if standing != shown:
            shown = standing
            yield event("state", standing)
        if standing.job.state in FINISHED and len(said) < _EVENTS_AT_ONCE:
            yield event("done", standing)
            return
        await asyncio.sleep(LOOK_EVERY_S)
