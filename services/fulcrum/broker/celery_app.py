"""The Celery application: one task without arguments, a queue for each kind of worker."""

from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

from celery import Celery  # type: ignore[import-untyped]  # has none
from kombu.entity import Queue

from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.jobs import QueueName

WORK = "fulcrum.work"  # the task: do what is due until nothing is
CONNECT_TIMEOUT_S = 2.0
_SCHEMES = ("redis", "rediss", "redis+socket")


def queue_of(name: QueueName) -> str:
    """The list in Redis."""
    return f"fulcrum-{name}"


def broker_url(redis_url: str) -> str:
    """As Celery takes it: a socket is `unix://` for redis-py and `redis+socket://` here. Raises InvalidSettings."""
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        database = parse_qs(parts.query).get("db", ["0"])[0]
        return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"
    if parts.scheme not in _SCHEMES:
        raise InvalidSettings(f"the broker is {parts.scheme!r}: expected unix, {', '.join(_SCHEMES)}")
    return redis_url


def make_app(redis_url: str, **changes: Any) -> Celery:
    """An application that has not connected yet. Raises InvalidSettings."""
    app = Celery("fulcrum", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        task_queues=[Queue(queue_of(name)) for name in get_args(QueueName)],  # type: ignore[no-untyped-call]
        task_ignore_result=True,
        # Late, so that a busy process holds no wake that an idle one could act on.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            # A wake that comes again does no harm: the row of the stage is held by a lease. These two make what a
            # killed worker had taken come back soon after its time and not 90 s later (kombu 5.7).
            "visibility_timeout": 3600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
        },
        **changes,
    )
    return app
