"""`python -m fulcrum.worker.pool FD`: the processes that work, as a Celery worker with prefork.

FD is the read end of a pipe that nobody writes to: when it ends, because the parent closed it or is gone, running
stages are finished or given back and everything here ends. A pipe and no signal: it reaches grandchildren and outlives
`kill -9` of the parent.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from billiard import current_process  # type: ignore[import-untyped]  # has none
from celery import signals  # type: ignore[import-untyped]  # has none

from fulcrum.broker.celery_app import WORK, make_app, queue_of
from fulcrum.broker.waking import CeleryQueue
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import open_store
from fulcrum.telemetry import configure_logging, configure_tracing
from fulcrum.worker.held import Stopping, Terms
from fulcrum.worker.machine import Machine
from fulcrum.worker.ranks.together import TrainingProcesses
from fulcrum.worker.running import Handlers, Runner
from fulcrum.worker.settings import Settings

if TYPE_CHECKING:
    from fulcrum.engine.local import LocalEngine

_GPUS = Path("/proc/driver/nvidia/gpus")


def node_name(parent_pid: int) -> str:
    """Of the Celery worker that a parent has started, for pings."""
    return f"fulcrum-{parent_pid}@{socket.gethostname()}"


def run_pool(settings: Settings, stop_fd: int, load_handlers: Callable[[], Handlers]) -> None:
    """Work until the pipe ends. `load_handlers` is called in each process, where torch may be imported."""
    app = make_app(settings.redis_url.get_secret_value())
    runners: list[Runner] = []

    def prepare(**_: object) -> None:
        gpus = _choose_gpus(settings)
        stopping = Stopping()
        _when_ended(stop_fd, stopping.ask)
        runners.append(_runner(settings, gpus, stopping, load_handlers()))

    def work() -> None:
        runners[0].run_until_idle(settings.queue_names)

    app.task(name=WORK)(work)
    signals.worker_process_init.connect(prepare, weak=False)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # Celery leaves ours alone then
    _when_ended(stop_fd, lambda: os.kill(os.getpid(), signal.SIGTERM))
    worker = app.Worker(
        pool="prefork",
        concurrency=settings.concurrency or max(n_gpus(), 1),
        queues=[queue_of(name) for name in settings.queue_names],
        hostname=node_name(os.getppid()),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()


def n_gpus() -> int:
    """NVIDIA devices of this machine, without importing torch."""
    return len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0


def gpus_of(index: int, n_processes: int, allowed: Sequence[str]) -> tuple[str, ...]:
    """Of the process with this index: its own first, then the others in the order in which its trainings take them.

    Own ones lie as far apart as they can, so that trainings of few processes on many GPUs share none.
    """
    own = index * max(1, len(allowed) // n_processes) % len(allowed)
    return (*allowed[own:], *allowed[:own])


def _choose_gpus(settings: Settings) -> tuple[str, ...]:
    """None where there is nothing to choose from. From now on torch sees the first of them alone."""
    if settings.device not in ("auto", "cuda") or (n := n_gpus()) < 2:
        return ()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n)))).split(",")
    gpus = gpus_of(current_process().index, settings.concurrency or n, allowed)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # before torch is imported, which looks once
    return gpus


def _runner(settings: Settings, gpus: tuple[str, ...], stopping: Stopping, handlers: Handlers) -> Runner:
    kept = settings.artifacts_url, settings.scratch_dir / "artifacts"
    machine = Machine(
        open_store(settings.database_url),
        open_artifacts(*kept),
        settings.scratch_dir,
        folders=settings.folders,
        buckets=settings.buckets,
        make_engine=lambda: _engine(settings),
        activations_bytes=int(settings.activations_gib * 2**30),
        training_processes=TrainingProcesses(settings.training_processes, *kept, gpus),
    )
    terms = Terms(settings.lease_s, settings.beat_s, settings.drain_s, settings.max_running_per_user)
    queue = CeleryQueue(settings.redis_url.get_secret_value())
    return Runner(machine, handlers, queue=queue, terms=terms, stopping=stopping)


def _engine(settings: Settings) -> "LocalEngine":
    import torch

    from fulcrum.engine.local import LocalEngine

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return LocalEngine(device, getattr(torch, settings.dtype))


def _when_ended(fd: int, act: Callable[[], None]) -> None:
    def wait() -> None:
        os.read(fd, 1)
        act()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _handlers() -> Handlers:
    from fulcrum.worker.handlers.registry import HANDLERS

    return HANDLERS


def main() -> None:
    """The pool of the product."""
    settings = Settings()
    configure_logging("worker", settings.log_level)
    configure_tracing("worker", settings.otlp_endpoint)
    logging.getLogger("celery").setLevel("WARNING")
    run_pool(settings, int(sys.argv[1]), _handlers)


if __name__ == "__main__":
    main()
