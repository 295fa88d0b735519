"""A stage in this worker's hands: its lease is renewed, what it says is written, its end is noticed."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fulcrum.domain.errors import JobCancelled, LeaseLost, Unavailable, UnknownDataset
from fulcrum.domain.identifiers import now
from fulcrum.domain.jobs import EventKind, JobProgress, JobRecord, JobTask
from fulcrum.domain.models import ModelRef
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.buckets import Bucket, named_bucket
from fulcrum.store.database import Store
from fulcrum.telemetry import logger
from fulcrum.worker.machine import Machine
from fulcrum.worker.ranks.together import TrainingProcesses

if TYPE_CHECKING:
    from fulcrum.engine.language_models import LanguageSource
    from fulcrum.engine.local import LocalEngine

_RATE_AFTER_S = 0.5  # before that, a rate is a guess

log = logger(__name__)


@dataclass(frozen=True)
class Terms:
    """How stages are held. A worker that gives no sign of life for `lease_s` is taken for dead."""

    lease_s: float = 30.0
    beat_s: float = 1.0
    drain_s: float = 5.0  # what a running stage gets to finish once the worker shall stop
    max_running_per_user: int = 4


class Draining(Exception):
    """The worker stops: the stage is given back. No error of the job, so no domain error."""


class Stopping:
    """Whether and since when the worker shall stop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._since = 0.0

    def ask(self) -> None:
        """Begin to stop."""
        if not self._event.is_set():
            self._since = time.monotonic()
            self._event.set()

    @property
    def asked(self) -> bool:
        """Whether it was asked; nothing new is begun then."""
        return self._event.is_set()

    def over(self, drain_s: float) -> bool:
        """Whether what runs has to be given back."""
        return self.asked and time.monotonic() - self._since >= drain_s

    def wait(self, timeout_s: float) -> bool:
        """Sleep, but not longer than until it is asked; whether it was."""
        return self._event.wait(timeout_s)


class Held:
    """The `Work` of one stage. Inside `with` a thread renews the lease each `beat_s` and writes what was said."""

    def __init__(
        self, machine: Machine, task: JobTask, job: JobRecord, terms: Terms, stopping: Stopping
    ) -> None:
        self._machine, self._task, self._job, self._terms = machine, task, job, terms
        self._stopping = stopping
        self._lock = threading.Lock()  # of what is said and not yet written
        self._writing = threading.Lock()
        self._events: list[tuple[datetime, EventKind, dict[str, Any]]] = []
        self._progress: JobProgress | None = None
        self._began: tuple[str, float, float] | None = None  # phrase, when, done
        self._kept = False
        self._cancelled = False
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._beat_until_ended, name=f"lease {task.job_id}", daemon=True
        )

    @property
    def job(self) -> JobRecord:
        """The job as it stood when the stage was claimed."""
        return self._job

    @property
    def store(self) -> Store:
        """Records."""
        return self._machine.store

    @property
    def artifacts(self) -> Artifacts:
        """Content-addressed bytes."""
        return self._machine.artifacts

    @property
    def engine(self) -> "LocalEngine":
        """Models in this process."""
        return self._machine.engine

    @property
    def folder(self) -> Path:
        """Scratch of the job on this machine."""
        return self._machine.folder_of(self._job.id)

    @property
    def cache(self) -> Path:
        """Scratch of the machine."""
        return self._machine.cache

    @property
    def activations_bytes(self) -> int:
        """Room for kept activations."""
        return self._machine.activations_bytes

    @property
    def training_processes(self) -> TrainingProcesses:
        """What trains an SAE."""
        return self._machine.training_processes

    def model(self, model_id: str) -> ModelRef:
        """What the engine takes for a registered model."""
        return self._machine.model(self._job.project_id, model_id)

    def sae(self, sae_id: str) -> tuple[ModelRef, str]:
        """What the engine takes for a registered SAE."""
        return self._machine.sae(self._job.project_id, sae_id)

    def language_model(self, reference: str) -> "LanguageSource":
        """Where a language model lies here."""
        return self._machine.references.language_model(reference)

    def place(self, reference: str) -> Path:
        """What a reference to a folder means here."""
        return self._machine.references.place(reference, UnknownDataset)

    def bucket(self, reference: str) -> tuple[Bucket, str]:
        """The bucket that a reference names, and the prefix in it."""
        return named_bucket(self._machine.buckets, reference)

    def progress(self, what: str, done: float, total: float, unit: str = "images") -> None:
        """Note how far it is. Raises JobCancelled, LeaseLost, and Draining when the worker has to stop."""
        self.check()
        at = time.monotonic()
        if self._began is None or self._began[0] != what or done < self._began[2]:
            self._began = (what, at, done)
        _, since, first = self._began
        rate = (done - first) / (at - since) if at - since >= _RATE_AFTER_S and done > first else None
        eta = None if rate is None else max(total - done, 0.0) / rate
        with self._lock:
            self._progress = JobProgress(what, float(done), float(total), unit, rate, eta)

    def kept(self) -> None:
        """Note that this attempt's work outlives it."""
        with self._lock:
            self._kept = True

    def log(self, text: str, level: str = "info") -> None:
        """A line of the job's log, and of the worker's."""
        with self._lock:
            self._events.append((now(), "log", {"level": level, "text": text}))
        log.info("job says", job_id=self._job.id, level_of_job=level, text=text)

    def metric(self, values: Mapping[str, float]) -> None:
        """A point of the job's curves."""
        with self._lock:
            self._events.append((now(), "metric", {name: float(value) for name, value in values.items()}))

    def check(self) -> None:
        """Raises what ends the stage, if something does."""
        if self._lost:
            raise LeaseLost(f"another worker has taken the {self._task.stage} of job {self._job.id} over")
        if self._cancelled:
            raise JobCancelled("the job was cancelled")
        if self._stopping.over(self._terms.drain_s):
            raise Draining

    def beat(self) -> None:
        """Renew the lease and write what was said. A store that cannot be reached gets it at the next beat."""
        with self._writing:
            with self._lock:
                events, self._events = self._events, []
                progress, self._progress = self._progress, None
                kept, self._kept = self._kept, False
            try:
                with self._machine.store.write() as tx:
                    self._cancelled = tx.job_tasks.renew(self._task, self._terms.lease_s, progress, kept=kept)
                    tx.job_events.append(self._job.id, events)
            except LeaseLost:
                self._lost = True
            except Unavailable as error:
                log.warning("the store does not answer", job_id=self._job.id, error=str(error))
                with self._lock:
                    self._events[:0] = events
                    self._progress = self._progress or progress
                    self._kept = self._kept or kept

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.beat()

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(self._terms.beat_s) and not self._lost:
            with suppress(LeaseLost):
                self.beat()
