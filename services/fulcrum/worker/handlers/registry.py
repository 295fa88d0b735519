"""Which handler does which kind of job."""

from fulcrum.domain.jobs import JobKind
from fulcrum.worker.work import Handler

HANDLERS: dict[JobKind, Handler] = {}
