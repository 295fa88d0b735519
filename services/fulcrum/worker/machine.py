"""What a worker's process has to work with: the store, the artifacts, models, places for files."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fulcrum.domain.errors import UnknownModel, UnknownSae
from fulcrum.domain.models import ModelRef
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.worker.ranks.together import TrainingProcesses

if TYPE_CHECKING:
    from fulcrum.engine.local import LocalEngine
    from fulcrum.engine.references import References


class Machine:
    """One process at work. torch is imported when the first job asks for the engine or names a model."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        scratch: Path,
        *,
        name: str | None = None,
        folders: Mapping[str, Path] | None = None,
        buckets: Mapping[str, str] | None = None,
        make_engine: "Callable[[], LocalEngine] | None" = None,
        activations_bytes: int = 0,
        training_processes: TrainingProcesses | None = None,
    ) -> None:
        """`scratch` is shared by the workers of a machine; references may name `folders`, imports also `buckets`."""
        self.store, self.artifacts = store, artifacts
        self.jobs_folder = scratch / "jobs"
        self.cache = scratch / "cache"
        for folder in (self.jobs_folder, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._folders, self._make_engine = folders or {}, make_engine
        self.buckets = buckets or {}
        self.activations_bytes = activations_bytes
        self.training_processes = training_processes or TrainingProcesses()

    @cached_property
    def engine(self) -> "LocalEngine":
        """The engine of this process."""
        from fulcrum.engine.local import LocalEngine

        return LocalEngine() if self._make_engine is None else self._make_engine()

    @cached_property
    def references(self) -> "References":
        """Names as the store keeps them to what the engine loads."""
        from fulcrum.engine.references import References
        from fulcrum.engine.sae_artifacts import SaeArtifacts

        # Each process has its own folder of links: another one may be making the same.
        saes = SaeArtifacts(self.artifacts, self.cache / "saes" / str(os.getpid()))
        return References(self._folders, saes)

    def model(self, project_id: str, model_id: str) -> ModelRef:
        """What the engine takes. Raises UnknownModel, also for one of another project."""
        with self.store.read() as tx:
            record = tx.models.get(model_id)
        if record.project_id != project_id:
            raise UnknownModel(f"no model with the id {model_id[:80]!r}")
        return self.references.model(record.ref)

    def sae(self, project_id: str, sae_id: str) -> tuple[ModelRef, str]:
        """What the engine takes. Raises UnknownSae, also for one of another project."""
        with self.store.read() as tx:
            record = tx.saes.get(sae_id)
        if record.project_id != project_id:
            raise UnknownSae(f"no SAE with the id {sae_id[:80]!r}")
        return self.model(project_id, record.model_id), self.references.sae(record.source)

    def rest(self) -> None:
        """Nothing is due: language models, which are large and asked for rarely, leave memory."""
        if "engine" in self.__dict__:  # asking for it would make it
            self.engine.residency.drop_language_models()

    def folder_of(self, job_id: str) -> Path:
        """The job's scratch, made when it is not there."""
        folder = self.jobs_folder / job_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def remove_folder(self, job_id: str) -> None:
        """Remove the job's scratch."""
        shutil.rmtree(self.jobs_folder / job_id, ignore_errors=True)

    def sweep(self) -> None:
        """Remove scratch of jobs that ended elsewhere, and links of processes that are gone."""
        ids = [p.name for p in self.jobs_folder.iterdir()]
        if ids:
            with self.store.read() as tx:
                finished = tx.jobs.finished_among(ids)
            for id in finished:
                self.remove_folder(id)
        for folder in (self.cache / "saes").glob("*"):
            if folder.name.isdecimal() and not _lives(int(folder.name)):
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
