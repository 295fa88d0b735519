"""Models and SAEs load in the background: which of them can be used, and when."""

import time
from collections.abc import Callable
from typing import TypeVar

from fulcrum.client.steps import Flow, Sleep
from fulcrum.domain.errors import DeadlineExceeded, UnknownModel, UnknownSae
from fulcrum.domain.records import ModelRecord, SaeRecord

RecordT = TypeVar("RecordT", ModelRecord, SaeRecord)
_FIRST_POLL_S, _SLOWEST_POLL_S = 0.1, 2.0


def ready_first(records: list[RecordT]) -> RecordT | None:
    """The first that is ready, or else the first that may become so; None where all have failed."""
    for states in (("ready",), ("loading", "registered")):
        for record in records:
            if record.state in states:
                return record
    return None


def until_ready(
    look: Callable[[], Flow[RecordT]], failed: type[UnknownModel] | type[UnknownSae], timeout_s: float
) -> Flow[RecordT]:
    """What `look` finds, once it is ready. Raises `failed` with the cause, DeadlineExceeded."""
    until, wait = time.monotonic() + timeout_s, _FIRST_POLL_S
    while True:
        record = yield from look()
        if record.state == "ready":
            return record
        if record.state == "failed":
            raise failed(f"{record.name!r} cannot be loaded: {record.error or 'the service gave no cause'}")
        if time.monotonic() > until:
            raise DeadlineExceeded(
                f"{record.name!r} is still {record.state} after timeout_s={timeout_s:g}", _SLOWEST_POLL_S
            )
        yield Sleep(wait)
        wait = min(1.5 * wait, _SLOWEST_POLL_S)
