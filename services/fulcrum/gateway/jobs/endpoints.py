"""`/v1/jobs`: work of more than a few seconds. What can be asked for stands with the things that it is about."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse

from fulcrum.domain.jobs import JobKind, JobState
from fulcrum.gateway.deps import (
    AskerDep,
    PageDep,
    PageOf,
    ProjectParam,
    RequestId,
    StoreDep,
    answer,
    answer_page,
    run_in_thread,
)
from fulcrum.gateway.errors import Problem
from fulcrum.gateway.jobs import service
from fulcrum.gateway.jobs.schemas import JobEvent, JobRecord, JobStanding
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.schemas import Id, PathId
from fulcrum.gateway.streams import with_errors

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", response_model=PageOf[JobRecord])
def list_jobs(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    kind: Annotated[JobKind | None, Query(description="Only of this kind.")] = None,
    state: Annotated[JobState | None, Query(description="Only in this state.")] = None,
    created_by: Annotated[Id | None, Query(description="Only of this user.")] = None,
) -> JSONResponse:
    """Jobs of a project, newest first."""
    found = service.page(store, asker, project_id, page, kind=kind, state=state, created_by=created_by)
    return answer_page(found)


async def _watched(
    job_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="`id` of the last event seen; later ones are sent.")
    ] = None,
) -> tuple[str, int]:
    await run_in_thread(service.get, store, asker, job_id)
    seen = last_event_id if last_event_id is not None and last_event_id.isdecimal() else "0"
    return job_id, min(int(seen), 2**62)


@router.get("/{job_id}:watch", response_class=EventSourceResponse)
async def watch_job(
    watched: Annotated[tuple[str, int], Depends(_watched)], store: StoreDep, request_id: RequestId
) -> AsyncIterator[JobStanding | JobEvent | Problem]:
    """Streams a job until it ends: `state` events with the job and its place, `log` and `metric` events, then
    `done` with the last state. With `Last-Event-ID` the lines that were seen are left out.
    """
    async with aclosing(with_errors(service.watch(store, *watched), request_id)) as events:
        async for item in events:
            yield item


# After the longer path: an id would match that, too.
@router.get("/{job_id}", response_model=JobStanding)
def get_job(job_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One job, with its place in the queue."""
    return answer(service.get(store, asker, job_id))


@router.post("/{job_id}:cancel", response_model=JobRecord)
def cancel_job(job_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Ends a job: at once while nothing of it runs, else within seconds. What it has stored so far stays stored."""
    return answer(service.cancel(store, asker, job_id))


@router.post("/{job_id}:retry", status_code=202, response_model=JobRecord)
def retry_job(job_id: PathId, asker: AskerDep, store: StoreDep, jobs: SubmitDep) -> JSONResponse:
    """Queues a failed or cancelled job again; the parts that are stored are not computed again."""
    return answer(service.retry(store, asker, jobs, job_id), 202)


@router.get("/{job_id}/log", response_model=PageOf[JobEvent])
def get_log(job_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """What the job said, oldest line first."""
    return answer_page(service.events(store, asker, job_id, "log", page))


@router.get("/{job_id}/metrics", response_model=PageOf[JobEvent])
def get_metrics(job_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Points of the job's curves, oldest first. A job that went on after a crash may tell a step twice."""
    return answer_page(service.events(store, asker, job_id, "metric", page))
