"""Work of more than a few seconds: what can be asked (one frozen spec for each kind), and how a job stands.

The database row is the truth; the broker only wakes workers. A job is a plan, then shards in any order, then a reduce
that reads the stored results of the shards. What a shard computes is kept under a key made of everything that
determines it, so that a retry, a resumed job or a second asker computes nothing again.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from fulcrum.domain.image_sets import FrozenImageSet
from fulcrum.domain.models import Variant
from fulcrum.domain.tasks import ClassSet

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINISHED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
QueueName = Literal["gpu", "cpu"]
Stage = Literal["plan", "shard", "reduce"]
TaskState = Literal["waiting", "ready", "running", "done", "ended"]
EventKind = Literal["log", "metric"]
SplitName = Literal["discover", "select", "confirm"]
ARTIFACT = "artifact:"  # before the hash of an uploaded archive, as the source of an import


@dataclass(frozen=True)
class Where:
    """Images whose `column` (a group, or `label`) has this value. Several must all hold."""

    column: str
    value: str


@dataclass(frozen=True)
class ImportDataset:
    """Images into a data set that was made empty.

    `source`: `artifact:<sha256>` of an uploaded archive, or `folder:NAME/sub` / `bucket:NAME/prefix` below a place that
    the administrator allowed. `new_splits` divides the images anew whatever splits they have. `replaces` is the digest
    that the data set had when this was asked ("" when it was empty); when another import was faster, this one fails.
    `quota_bytes` is what all data sets of the project may take together. With `model_id`, images whose embeddings by
    that model are nearly the same are near-duplicates too.
    """

    dataset_id: str
    source: str
    format: str | None = None
    new_splits: bool = False
    seed: int = 0
    replaces: str | None = None
    quota_bytes: int | None = None
    model_id: str | None = None
    kind: Literal["import_dataset"] = "import_dataset"


@dataclass(frozen=True)
class IndexDataset:
    """Embeddings, base logits and sparse latents of a data set under an SAE."""

    dataset_id: str
    sae_id: str
    keep_activations_bytes: int = 0
    kind: Literal["index_dataset"] = "index_dataset"


@dataclass(frozen=True)
class TrainSae:
    """An SAE from the activations of a data set; registered under `name` when it is done.

    `split` None trains on all images but a tenth (at most 512), on which the SAE is judged; else on those of the split,
    and others judge. `sparsity` is the weight of the sparsity loss of relu, gated and jumprelu SAEs, None the default.
    """

    dataset_id: str
    model_id: str
    name: str
    hook_point: str | None = None  # None: the middle block
    variant: Variant = "topk"
    d_sae: int = 2048
    k: int = 16
    n_tokens: int = 1_000_000
    learning_rate: float = 2e-3
    batch_size: int = 2048
    split: str | None = None
    early_stop: bool = False  # end before `n_tokens` when the loss has stopped falling
    sparsity: float | None = None
    seed: int = 0
    kind: Literal["train_sae"] = "train_sae"


@dataclass(frozen=True)
class DescribeConcepts:
    """What the latents of an SAE stand for, from an indexed data set."""

    sae_id: str
    dataset_id: str
    vocabulary: tuple[str, ...] = ()  # () takes the built-in one
    n_top_images: int = 16
    seed: int = 0
    kind: Literal["describe_concepts"] = "describe_concepts"


@dataclass(frozen=True)
class ValidateCorrection:
    """What a version of a correction fixes and breaks on a split, with the verdict."""

    correction_id: str
    number: int
    dataset_id: str
    split: SplitName = "select"
    where: tuple[Where, ...] = ()
    same_cue_legitimate: tuple[Where, ...] = ()
    specification: dict[str, Any] = field(default_factory=dict)  # fields that differ from the default
    n_controls: int = 100
    concept_bank: tuple[str, ...] = ()  # held-out prompts whose nearness to the images is watched
    task: ClassSet | None = None  # None: the correction's own, else the data set's labels
    seed: int = 0
    fresh: bool = False  # compute every part, whatever is stored
    image_sets: tuple[FrozenImageSet, ...] = ()  # judged too, by their names in order
    kind: Literal["validate_correction"] = "validate_correction"


@dataclass(frozen=True)
class SweepCorrection:
    """Dose-response of a correction on a split, with the cloud of matched controls."""

    correction_id: str
    number: int
    dataset_id: str
    gains: tuple[float, ...]
    split: SplitName = "select"
    where: tuple[Where, ...] = ()
    n_controls: int = 100
    task: ClassSet | None = None
    seed: int = 0
    fresh: bool = False  # compute every part, whatever is stored
    kind: Literal["sweep_correction"] = "sweep_correction"


@dataclass(frozen=True)
class SuggestCorrection:
    """One correction for a failure group, found on discover (or select) and ranked by what it costs."""

    dataset_id: str
    sae_id: str
    where: tuple[Where, ...]
    clean: tuple[Where, ...] = ()  # (): all other images of the split
    split: SplitName = "discover"
    max_clean_loss: float = 0.01
    max_edits: int = 64
    budget: int = 800
    task: ClassSet | None = None
    seed: int = 0
    kind: Literal["suggest_correction"] = "suggest_correction"


@dataclass(frozen=True)
class VersionOf:
    """A version of a correction."""

    correction_id: str
    number: int


@dataclass(frozen=True)
class InteractCorrections:
    """Whether pairs of corrections break together what neither breaks alone, on a split that may be looked at."""

    corrections: tuple[VersionOf, ...]  # at least two, for the same SAE
    dataset_id: str
    split: SplitName = "select"
    where: tuple[Where, ...] = ()  # (): all images of the split
    task: ClassSet | None = None  # None: the corrections' own where they agree, else the data set's labels
    seed: int = 0
    kind: Literal["interact_corrections"] = "interact_corrections"


@dataclass(frozen=True)
class ImageConcept:
    """A concept of images: those that fulfil `where`, against those that fulfil `against` (empty: all others).

    `domain` is the kind of thing that it is, such as a colour; concepts of a domain should lie together.
    """

    name: str
    where: tuple[Where, ...]
    against: tuple[Where, ...] = ()
    domain: str = ""


@dataclass(frozen=True)
class RatingsFile:
    """What people say of pairs or triplets of concepts: an artifact that `domain.concept_files` reads."""

    name: str
    sha256: str


ExpertUnits = Literal["latents", "vision", "text", "language"]
UnitSite = Literal["resid_post", "mlp_in", "mlp_out"]
TokenPool = Literal["all", "cls", "patches"]


@dataclass(frozen=True)
class FindExperts:
    """Which units know which concepts, always beside the same with random weights.

    `units`: latents of `sae_id`, units of the vision or text tower of `model_id` at `sites` of every block, or linear
    layers of `language_model`, a reference to a model of transformers, which has no `model_id`: those that `layers`
    chooses (see `domain.language_models`), all by default.
    Concepts of images (of `dataset_id`; of `split` and `among` where given): those of `concepts`, and of each of
    `columns` one concept for every value, against the other values. Concepts of texts: the artifact of a concept set.
    A response of an image is the largest over `tokens`. `n_pos` and `n_neg` examples are drawn of each concept; None
    takes all, and then concepts of different base rates cannot be compared by a threshold on AP.
    """

    units: ExpertUnits
    model_id: str | None
    name: str = ""
    sae_id: str | None = None
    dataset_id: str | None = None
    columns: tuple[str, ...] = ()
    concepts: tuple[ImageConcept, ...] = ()
    among: tuple[Where, ...] = ()
    split: SplitName | None = None
    concept_set_sha256: str | None = None
    sites: tuple[UnitSite, ...] = ("resid_post", "mlp_in")
    tokens: TokenPool = "all"
    n_pos: int | None = None
    n_neg: int | None = None
    ratings: tuple[RatingsFile, ...] = ()
    seed: int = 0
    language_model: str | None = None
    layers: tuple[str, ...] = ()
    kind: Literal["find_experts"] = "find_experts"


JobSpec = (
    ImportDataset
    | IndexDataset
    | TrainSae
    | DescribeConcepts
    | ValidateCorrection
    | SweepCorrection
    | SuggestCorrection
    | InteractCorrections
    | FindExperts
)
JobKind = Literal[
    "import_dataset",
    "index_dataset",
    "train_sae",
    "describe_concepts",
    "validate_correction",
    "sweep_correction",
    "suggest_correction",
    "interact_corrections",
    "find_experts",
]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
QUEUES: dict[JobKind, QueueName] = {
    "import_dataset": "cpu",
    "index_dataset": "gpu",
    "train_sae": "gpu",
    "describe_concepts": "gpu",
    "validate_correction": "gpu",
    "sweep_correction": "gpu",
    "suggest_correction": "gpu",
    "interact_corrections": "gpu",
    "find_experts": "gpu",
}


def queue_of(spec: JobSpec) -> QueueName:
    """Whose workers do it: an import that embeds its images runs a model."""
    if isinstance(spec, ImportDataset) and spec.model_id is not None:
        return "gpu"
    return QUEUES[spec.kind]


@dataclass(frozen=True)
class JobProgress:
    """How far a job is. `what` is a phrase for people; `rate_per_s` and `eta_s` are None until they are known."""

    what: str
    done: float
    total: float
    unit: str = "images"
    rate_per_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True)
class JobRecord:
    """A job. `key` is the hash of everything that determines its result, None where it has an effect instead
    (an import). `result` is small: ids, hashes and the numbers of a summary; what is large lies among the artifacts.

    It starts when the jobs named in `after` have succeeded, and fails when one of them does not.
    """

    id: str
    project_id: str
    kind: JobKind
    spec: JobSpec
    created_by: str
    created_at: datetime
    queue: QueueName
    state: JobState = "queued"
    key: str | None = None
    cancel_requested: bool = False
    progress: JobProgress | None = None
    n_shards: int = 0
    n_shards_done: int = 0
    n_shards_reused: int = 0  # answered from the store
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None  # `REASON: message`
    result: dict[str, Any] | None = None
    after: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class JobStanding:
    """A job, and its place in the queue (1: the next) where it stands in one."""

    job: JobRecord
    position: int | None = None


@dataclass(frozen=True)
class Shard:
    """A part of a job that can run anywhere. `content` is plain JSON; `key` names all that determines the result."""

    key: str
    content: dict[str, Any]


@dataclass(frozen=True)
class ShardResult:
    """What a shard left behind: the artifact with its bytes."""

    shard: Shard
    sha256: str


@dataclass(frozen=True)
class JobTask:
    """One stage of a job, as a worker holds it. `attempt` counts the claims: whoever holds an older one has lost it.

    `waiting` for other jobs, `ready` to be claimed, `running` under a lease, `done`, or `ended` with its job.
    """

    job_id: str
    stage: Stage
    number: int
    key: str
    content: dict[str, Any]
    state: TaskState
    attempt: int = 0
    worker: str | None = None
    lease_expires_at: datetime | None = None
    result_sha256: str | None = None

    @property
    def shard(self) -> Shard:
        """What a handler gets of a task of the stage `shard`."""
        return Shard(self.key, self.content)


@dataclass(frozen=True)
class JobEvent:
    """A line of a job's log (`level`, `text`) or a point of its curves (names to numbers), numbered from 1."""

    job_id: str
    number: int
    at: datetime
    kind: EventKind
    content: dict[str, Any]


class JobQueue(Protocol):
    """Wakes workers. A lost or doubled wake does no harm: workers take what is due from the store."""

    def wake(self, queue: QueueName, n: int = 1) -> None:
        """Makes up to `n` idle workers of a queue look. Raises ServiceUnavailable when nobody can be told."""
        ...

    def n_waiting(self, queue: QueueName) -> int:
        """Wakes that nobody has taken yet. Raises ServiceUnavailable."""
        ...


def content_key(**parts: Any) -> str:
    """sha256 over the canonical JSON of the parts: the same parts, the same key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
