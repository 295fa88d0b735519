"""A worker of this machine: its pool of processes, watched; the reconciler; figures."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import prometheus_client

from fulcrum.broker.celery_app import make_app
from fulcrum.broker.waking import CeleryQueue
from fulcrum.domain.errors import FulcrumError
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import open_store
from fulcrum.telemetry import logger
from fulcrum.worker.held import Stopping
from fulcrum.worker.machine import Machine
from fulcrum.worker.pool import node_name
from fulcrum.worker.reconciler import Reconciler
from fulcrum.worker.settings import Settings

POOL = (sys.executable, "-P", "-m", "fulcrum.worker.pool")
_EXIT_POOL = 70  # EX_SOFTWARE: the supervisor starts a new one
_LAST_WORDS_S = 10.0
_PING_S = 2.0

REGISTRY = prometheus_client.CollectorRegistry()
JOBS = prometheus_client.Gauge(
    "fulcrum_jobs", "Jobs by queue and state.", ("queue", "state"), registry=REGISTRY
)
READY = prometheus_client.Gauge(
    "fulcrum_job_stages_ready", "Stages that wait for a worker.", ("queue",), registry=REGISTRY
)

log = logger(__name__)


def serve(settings: Settings, environment: Mapping[str, str], pool: tuple[str, ...] = POOL) -> int:
    """Until SIGTERM or SIGINT, or until the pool is gone; the exit code. `environment` is handed to the pool.

    Raises InvalidSettings, MissingDependency.
    """
    stopping = Stopping()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.ask())
    queue = CeleryQueue(settings.redis_url.get_secret_value())
    app = make_app(settings.redis_url.get_secret_value())
    if settings.metrics_port is not None:
        prometheus_client.start_http_server(settings.metrics_port, settings.metrics_host, REGISTRY)
    with open_store(settings.database_url) as store:
        artifacts = open_artifacts(settings.artifacts_url, settings.scratch_dir / "artifacts")
        machine = Machine(store, artifacts, settings.scratch_dir)
        reconciler = Reconciler(
            machine,
            queue,
            settings.queue_names,
            timedelta(days=settings.keep_events_days),
            timedelta(days=settings.keep_archives_days),
        )
        ended, hold = os.pipe()
        child = subprocess.Popen([*pool, str(ended)], pass_fds=[ended], env=dict(environment))
        os.close(ended)
        log.info("working", queues=settings.queues, pid=child.pid)
        try:
            while not stopping.wait(settings.reconcile_s):
                if child.poll() is not None:
                    log.error("the pool is gone", status=child.returncode)
                    return _EXIT_POOL
                try:
                    reconciler.look()
                    _count(machine, settings)
                    if settings.health_file is not None and app.control.ping(
                        destination=[node_name(os.getpid())], timeout=_PING_S
                    ):
                        settings.health_file.touch()
                except (FulcrumError, OSError) as error:
                    log.warning("store or broker do not answer", error=str(error))
            log.info("draining")
            return 0
        finally:
            os.close(hold)
            _wait(child, settings.drain_s + _LAST_WORDS_S)


def _count(machine: Machine, settings: Settings) -> None:
    with machine.store.read() as tx:
        counts = tx.jobs.counts()
        ready = {name: tx.job_tasks.n_ready(name) for name in settings.queue_names}
    JOBS.clear()
    for (queue, state), n in counts.items():
        JOBS.labels(queue, state).set(n)
    for name, n in ready.items():
        READY.labels(name).set(n)


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    if child.poll() is None:
        log.warning("the pool did not end in time: what it holds goes to others when its lease ends")
        child.kill()
    child.wait()
