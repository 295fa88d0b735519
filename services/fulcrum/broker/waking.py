"""Wakes workers through Redis."""

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from fulcrum.broker.celery_app import WORK, make_app, queue_of
from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.domain.jobs import QueueName

_ENOUGH = 32  # more wakes than processes of most labs; each of them works until nothing is due
_RETRY_AFTER_S = 2.0


class CeleryQueue:
    """The `JobQueue` of a platform. Connects at the first wake; safe to share between threads."""

    def __init__(self, redis_url: str) -> None:
        """Raises InvalidSettings."""
        self._app = make_app(redis_url)

    def wake(self, queue: QueueName, n: int = 1) -> None:
        """Makes up to `n` idle workers of a queue look. Raises ServiceUnavailable."""
        with _translated():
            for _ in range(min(n, _ENOUGH)):
                self._app.send_task(WORK, queue=queue_of(queue), retry=False, ignore_result=True)

    def n_waiting(self, queue: QueueName) -> int:
        """Wakes that nobody has taken yet. Raises ServiceUnavailable."""
        with _translated(), self._app.connection_or_acquire() as connection:
            return int(connection.default_channel.client.llen(queue_of(queue)))

    def close(self) -> None:
        """Ends the connections."""
        self._app.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, RedisError, OSError) as error:
        raise ServiceUnavailable(f"Redis does not take wakes of workers: {error}", _RETRY_AFTER_S) from error
