"""How a job is asked for: used by the endpoints of the kinds, which check what they are asked first.

@router.post("/{dataset_id}:index", status_code=202, response_model=JobRecord)
def index_dataset(..., jobs: SubmitDep) -> JSONResponse:
    return answer(jobs.submit(asker, project_id, IndexDataset(...), key=content_key(...)), 202)
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from fulcrum.domain.errors import RateLimited, Unavailable
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import JobQueue, JobRecord, JobSpec, queue_of
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import ServicesDep
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction
from fulcrum.telemetry import logger

_FULL_RETRY_S = 30.0

log = logger(__name__)


@dataclass(frozen=True)
class Submitter:
    """Takes jobs. The row is what counts: it is kept and run later also while Redis is away."""

    store: Store
    queue: JobQueue
    max_unfinished: int  # jobs of a user

    def submit(
        self,
        asker: Asker,
        project_id: str,
        spec: JobSpec,
        *,
        key: str | None = None,
        after: tuple[str, ...] = (),
    ) -> JobRecord:
        """A new job of the project; or the one of the same `key` that the project has, unless it failed.

        The caller has checked that the asker may. Raises RateLimited for too many, UnknownJob for `after`.
        """
        with self.store.write() as tx:
            job = self.add(tx, asker, project_id, spec, key=key, after=after)
        self.wake(job)
        return job

    def add(
        self,
        tx: Transaction,
        asker: Asker,
        project_id: str,
        spec: JobSpec,
        *,
        key: str | None = None,
        after: tuple[str, ...] = (),
    ) -> JobRecord:
        """`submit` as part of a transaction: call it last, and `wake` when that is committed."""
        if key is not None and (found := tx.jobs.by_key(project_id, key)) is not None:
            return found
        n = tx.jobs.n_unfinished(asker.user.id)
        if n >= self.max_unfinished:
            raise RateLimited(
                f"you have {n} unfinished jobs, which is the limit: wait for one or cancel it", _FULL_RETRY_S
            )
        job = tx.jobs.add(
            JobRecord(
                id=new_id("job"),
                project_id=project_id,
                kind=spec.kind,
                spec=spec,
                created_by=asker.user.id,
                created_at=now(),
                queue=queue_of(spec),
                key=key,
                after=after,
            )
        )
        tx.audit.append(asker.user.id, "job.create", job.id, {"kind": job.kind, "project_id": project_id})
        return job

    def wake(self, job: JobRecord) -> None:
        """Tell a worker. When nobody can be told, a worker's own look at the store finds the job."""
        if job.state != "queued":
            return
        try:
            self.queue.wake(job.queue)
        except Unavailable as error:
            log.warning("nobody could be woken", job_id=job.id, error=str(error))


async def _submitter(services: ServicesDep) -> Submitter:
    return Submitter(services.store, services.queue, services.settings.max_unfinished_jobs)


SubmitDep = Annotated[Submitter, Depends(_submitter)]
