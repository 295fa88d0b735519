"""Jobs of a running platform, as benchmarks wait for them."""

from fulcrum.client import Client
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.jobs import JobRecord

_PATIENCE_S = 3600.0


def finished(client: Client, job: JobRecord) -> JobRecord:
    """The job once it has succeeded. Raises ComputationFailed with why it has not."""
    job = client.jobs.wait(job, timeout_s=_PATIENCE_S)
    if job.state != "succeeded":
        raise ComputationFailed(f"job {job.id} ({job.kind}) is {job.state}: {job.error}")
    return job
