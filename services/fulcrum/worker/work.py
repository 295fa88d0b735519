"""What a handler of a kind of job is, and what it is given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fulcrum.domain.jobs import JobRecord, Shard, ShardResult
from fulcrum.domain.models import ModelRef
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.buckets import Bucket
from fulcrum.store.database import Store
from fulcrum.worker.ranks.together import TrainingProcesses

if TYPE_CHECKING:
    from fulcrum.engine.language_models import LanguageSource
    from fulcrum.engine.local import LocalEngine


class Work(Protocol):
    """One stage of one job at work. Long loops call `progress` often: it is where a cancelled job ends."""

    @property
    def job(self) -> JobRecord:
        """The job as it stood when the stage was claimed."""
        ...

    @property
    def store(self) -> Store:
        """Records. Transactions are short: nothing is computed inside."""
        ...

    @property
    def artifacts(self) -> Artifacts:
        """Content-addressed bytes."""
        ...

    @property
    def engine(self) -> "LocalEngine":
        """Models in this process; importing torch is put off until somebody asks."""
        ...

    @property
    def folder(self) -> Path:
        """Scratch of this job; it survives attempts, so checkpoints live here. Removed when the job ends."""
        ...

    @property
    def cache(self) -> Path:
        """Scratch of this worker's machine, shared by jobs: whatever is in it can be made again."""
        ...

    @property
    def activations_bytes(self) -> int:
        """Of `cache` that activations may take which a training keeps for the next; 0: none."""
        ...

    @property
    def training_processes(self) -> TrainingProcesses:
        """What trains an SAE."""
        ...

    def model(self, model_id: str) -> ModelRef:
        """What the engine takes for a registered model of the job's project. Raises UnknownModel."""
        ...

    def sae(self, sae_id: str) -> tuple[ModelRef, str]:
        """What the engine takes for a registered SAE of the job's project: its model and its place on this machine.

        Raises UnknownSae, UnknownModel, UnknownArtifact, CorruptArtifact.
        """
        ...

    def language_model(self, reference: str) -> "LanguageSource":
        """Where a language model lies on this machine. Raises UnknownModel."""
        ...

    def place(self, reference: str) -> Path:
        """What `folder:NAME/sub` means on this machine. Raises UnknownDataset."""
        ...

    def bucket(self, reference: str) -> tuple[Bucket, str]:
        """The bucket of `bucket:NAME/prefix`, and the prefix. Raises UnknownDataset, MissingDependency."""
        ...

    def progress(self, what: str, done: float, total: float, unit: str = "images") -> None:
        """Tells how far it is; cheap, may be called for every item.

        Raises JobCancelled when the job was cancelled, LeaseLost when somebody else has taken the stage over.
        """
        ...

    def kept(self) -> None:
        """Tells that what this attempt has done is in `folder` and will not be done again: attempts before it no longer
        count, so that a long stage may lose its worker as often as it likes, if only it comes further each time.
        """
        ...

    def log(self, text: str, level: str = "info") -> None:
        """A line of the job's log, for people."""
        ...

    def metric(self, values: Mapping[str, float]) -> None:
        """A point of the job's curves (a training's loss), shown live."""
        ...


class Handler(Protocol):
    """A kind of job. Every stage may run again after a crash, on another machine, and must come to the same end."""

    def plan(self, work: Work) -> Sequence[Shard]:
        """The shards; none where everything happens in `reduce`. Raises domain errors for what cannot be meant."""
        ...

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        """The shard's result, kept as an artifact under the shard's key."""
        ...

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        """The job's result, from the stored results in the order of the plan. Writes records in one transaction."""
        ...
