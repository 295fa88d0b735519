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
        # Early: a message has done its work when a process looks. With late ones a worker whose process was killed took
        # no wake any more (the lost one still filled its prefetch of 1); stages come back through their leases.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
        },
        **changes,
    )
    return app
