"""Records of `/v1/jobs`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from fulcrum.domain.jobs import EventKind, JobKind, JobState, QueueName
from fulcrum.gateway.schemas import Shown


class JobProgress(Shown):
    """How far a job is."""

    what: str = Field(description="A phrase for people.")
    done: float = Field(description="Of `total`.")
    total: float = Field(description="All there is.")
    unit: str = Field("images", description="What is counted.")
    rate_per_s: float | None = Field(None, description="Units in a second, once known.")
    eta_s: float | None = Field(None, description="Seconds left at that rate, once known.")


class JobRecord(Shown):
    """A job."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    kind: JobKind = Field(description="What is done.")
    spec: dict[str, Any] = Field(description="What was asked; its fields depend on `kind`.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was asked.")
    queue: QueueName = Field(description="Which workers do it.")
    state: JobState = Field("queued", description="`succeeded`, `failed` and `cancelled` are ends.")
    key: str | None = Field(None, description="Hash of all that determines the result.")
    cancel_requested: bool = Field(False, description="It ends at its next sign of life.")
    progress: JobProgress | None = Field(None, description="How far it is, once it runs.")
    n_shards: int = Field(0, description="Parts that can run anywhere, once planned.")
    n_shards_done: int = Field(0, description="Parts with a stored result.")
    n_shards_reused: int = Field(0, description="Parts that were answered from the store.")
    started_at: datetime | None = Field(None, description="When a worker took it.")
    finished_at: datetime | None = Field(None, description="When it ended.")
    error: str | None = Field(None, description="`REASON: message` of a failed one.")
    result: dict[str, Any] | None = Field(None, description="Ids, hashes and numbers of a succeeded one.")
    after: list[str] = Field(default=[], description="Jobs that must have succeeded before it starts.")
    version: int = Field(1, description="Changes so far, and the ETag.")


class JobStanding(Shown):
    """A job, and where it stands."""

    job: JobRecord = Field(description="The job.")
    position: int | None = Field(
        None, description="Place in its queue, 1 for the next; null where it is in none."
    )


class JobEvent(Shown):
    """A line of a job's log, or a point of its curves."""

    job_id: str = Field(description="Id of the job.")
    number: int = Field(description="Counts the events of a job from 1.")
    at: datetime = Field(description="When.")
    kind: EventKind = Field(description="`log` or `metric`.")
    content: dict[str, Any] = Field(description="`level` and `text` of a line; names to numbers of a point.")
