"""When the same request is sent again, and after which wait."""

import random
from dataclasses import dataclass

from fulcrum.domain.errors import DeadlineExceeded, IdempotencyConflict, OutOfMemory, Unavailable


class ConnectionLost(Exception):
    """The connection broke; `sent` says whether the gateway may have seen the request.

    It never leaves the SDK: the caller gets ServiceUnavailable.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True)
class Retries:
    """Up to `n` further attempts with doubling waits, of which a random half is left away so that
    many clients do not come back at the same moment. A longer wait than `longest_wait_s` is not worth it:
    the error is the better answer.
    """

    n: int = 4
    first_wait_s: float = 0.25
    longest_wait_s: float = 30.0

    def wait_s(self, error: Exception, n_done: int, repeatable: bool) -> float | None:
        """Seconds until the next attempt after `n_done` of them, None where the error is the answer.

        `repeatable`: sending the request twice does no more than once (GET, PUT without precondition, DELETE, and
        POST with an Idempotency-Key).
        """
        if n_done > self.n:
            return None
        match error:
            case ConnectionLost(sent=True) if not repeatable:
                return None
            case ConnectionLost():
                pass
            case IdempotencyConflict() if n_done > 1:
                pass  # our own first attempt still runs; its answer is kept for us
            case DeadlineExceeded():
                return None  # the caller's time is up, and the work would start from nothing
            case OutOfMemory(retry_after_s=None):
                return None
            case Unavailable():
                pass
            case _:
                return None
        doubled = min(self.first_wait_s * 2.0 ** (n_done - 1), self.longest_wait_s)
        wait = doubled * random.uniform(0.5, 1.0)
        asked = getattr(error, "retry_after_s", None) or 0.0
        return None if asked > self.longest_wait_s else max(wait, asked)
