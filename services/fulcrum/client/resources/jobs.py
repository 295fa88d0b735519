"""Jobs: work of more than a few seconds. What asks for one stands with the things that it is about."""

import time
from collections.abc import Callable
from typing import Any

from fulcrum.client.operations import Bound, Side, listing, operation, stream
from fulcrum.client.reading import read
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow, Sleep
from fulcrum.client.wire import path
from fulcrum.domain.errors import DeadlineExceeded
from fulcrum.domain.jobs import FINISHED, JobEvent, JobKind, JobRecord, JobStanding, JobState

_FIRST_LOOK_S, _LOOK_S = 0.1, 1.0


class Jobs(Bound[Side]):
    """`client.jobs`: how jobs stand, what they say, and their end."""

    @listing(JobRecord)
    def list(
        self,
        *,
        kind: JobKind | None = None,
        state: JobState | None = None,
        created_by: Identified | str | None = None,
    ) -> Flow[None]:
        """All jobs of the project, newest first."""
        filters = given(
            project_id=self._wire.project_id,
            kind=kind,
            state=state,
            created_by=None if created_by is None else id_of(created_by),
        )
        yield from self._wire.pages(JobRecord, path("jobs"), filters)

    @operation
    def get(self, job: Identified | str) -> Flow[JobStanding]:
        """One job with its place in the queue. Raises UnknownJob."""
        return (yield from self._wire.ask(JobStanding, "GET", path("jobs", id_of(job))))

    @operation
    def cancel(self, job: Identified | str) -> Flow[JobRecord]:
        """The job, which ends now or within seconds. Raises JobFinished."""
        return (yield from self._wire.ask(JobRecord, "POST", path("jobs", f"{id_of(job)}:cancel")))

    @operation
    def retry(self, job: Identified | str) -> Flow[JobRecord]:
        """The failed or cancelled job, queued again. Raises JobUnfinished."""
        return (yield from self._wire.ask(JobRecord, "POST", path("jobs", f"{id_of(job)}:retry")))

    @stream(object)
    def watch(self, job: Identified | str) -> Flow[JobRecord]:
        """A stream of JobStanding and JobEvent until the job ends; `.result()` is the job at its end."""
        where = path("jobs", f"{id_of(job)}:watch")

        def item(name: str, content: Any) -> JobStanding | JobEvent:
            if name == "state":
                return read(JobStanding, content, where)
            return read(JobEvent, content, where)

        done = yield from self._wire.events(where, None, item, method="GET")
        return read(JobStanding, done, where).job

    @operation
    def wait(
        self,
        job: Identified | str,
        *,
        on_progress: Callable[[JobStanding], None] | None = None,
        timeout_s: float | None = None,
    ) -> Flow[JobRecord]:
        """The job at its end, whatever that is; `on_progress` gets each new state.

        Also over restarts of the gateway, as far as `retries` go. Raises DeadlineExceeded after `timeout_s`.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wait_s, version = _FIRST_LOOK_S, None
        while True:
            standing = yield from self._wire.ask(JobStanding, "GET", path("jobs", id_of(job)))
            if on_progress is not None and standing.job.version != version:
                on_progress(standing)
            version = standing.job.version
            if standing.job.state in FINISHED:
                return standing.job
            if until is not None and time.monotonic() >= until:
                raise DeadlineExceeded(f"job {standing.job.id} is {standing.job.state} after {timeout_s:g} s")
            yield Sleep(wait_s)
            wait_s = min(2 * wait_s, _LOOK_S)

    @listing(JobEvent)
    def log(self, job: Identified | str) -> Flow[None]:
        """What the job said, oldest line first."""
        yield from self._wire.pages(JobEvent, path("jobs", id_of(job), "log"))

    @listing(JobEvent)
    def metrics(self, job: Identified | str) -> Flow[None]:
        """Points of the job's curves, oldest first."""
        yield from self._wire.pages(JobEvent, path("jobs", id_of(job), "metrics"))
