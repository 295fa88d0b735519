"""What the store keeps: one frozen dataclass for each word of the platform.

`version` counts the changes of a row from 1 and is its ETag; immutable things have none. Times are aware, in UTC.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import SaeDoesNotFit
from fulcrum.domain.image_sets import FrozenImageSet, ImageSetPurpose
from fulcrum.domain.labels import EarlierLabel, LabelReview, LabelSource
from fulcrum.domain.models import UNITS, ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Provenance

T = TypeVar("T")

Role = Literal["viewer", "analyst", "reviewer", "admin"]  # each may do what the ones before it may
Scope = Literal[
    "read", "write", "admin"
]  # of an API token, each with the ones before it; the role still limits
LoadState = Literal["registered", "loading", "ready", "failed"]
ResultKind = Literal["prediction", "attribution", "effect", "dose_response", "suggestions"]
EvaluationKind = Literal["validation", "sweep"]
CorrectionState = Literal["draft", "evaluated", "in_review", "approved", "rejected", "superseded"]


@dataclass(frozen=True)
class Page(Generic[T]):
    """Items, newest first, and the cursor of the next page: None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


@dataclass(frozen=True)
class User:
    """A person. `is_admin` is about the platform; roles are about projects."""

    id: str
    name: str
    created_at: datetime
    is_admin: bool = False
    disabled: bool = False
    version: int = 1


@dataclass(frozen=True)
class ApiToken:
    """A token without its secret, which is shown once and stored as a hash."""

    id: str
    user_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Login:
    """A browser session without its secret."""

    id: str
    user_id: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Project:
    """What a group works on; everything below belongs to one."""

    id: str
    name: str
    created_at: datetime
    version: int = 1


@dataclass(frozen=True)
class Member:
    """A user's role in a project."""

    project_id: str
    user_id: str
    role: Role


@dataclass(frozen=True)
class ModelRecord:
    """A registered model. `info` is known once it was loaded; `error` says why it could not be."""

    id: str
    project_id: str
    name: str
    ref: ModelRef
    created_by: str
    created_at: datetime
    state: LoadState = "registered"
    info: ModelInfo | None = None
    error: str | None = None
    version: int = 1


@dataclass(frozen=True)
class SaeRecord:
    """A registered SAE of a registered model. `source` is the engine's name for it, never a path from a client."""

    id: str
    project_id: str
    name: str
    model_id: str
    source: str
    created_by: str
    created_at: datetime
    state: LoadState = "registered"
    info: SaeInfo | None = None
    error: str | None = None
    job_id: str | None = None  # that trained it
    version: int = 1

    @property
    def is_units(self) -> bool:
        """Whether it is no SAE, but stands for the units of a layer themselves."""
        return self.source.startswith(UNITS)

    def require_latents(self, what: str) -> None:
        """Raises SaeDoesNotFit where it stands for the units of a layer, which say something of every image."""
        if self.is_units:
            raise SaeDoesNotFit(f"{self.name!r} are the units of a layer and no latents of an SAE: {what}")


@dataclass(frozen=True)
class ImageRecord:
    """An uploaded image; its bytes are the artifact `sha256`."""

    id: str
    project_id: str
    sha256: str
    media_type: str
    size_bytes: int
    width: int
    height: int
    filename: str
    created_by: str
    created_at: datetime
    version: int = 1


@dataclass(frozen=True)
class DatasetRecord:
    """A data set. `digest` names its content once it was imported."""

    id: str
    project_id: str
    name: str
    created_by: str
    created_at: datetime
    description: str = ""
    state: Literal["empty", "importing", "ready", "failed"] = "empty"
    digest: str | None = None
    n_images: int = 0
    class_names: tuple[str, ...] = ()
    n_by_split: dict[str, int] = field(default_factory=dict)
    manifest_sha256: str | None = None  # artifact with the samples, once imported
    report_sha256: str | None = None  # artifact with what the import found
    size_bytes: int = 0  # of its images
    version: int = 1


@dataclass(frozen=True)
class DatasetVersion:
    """A content that a data set has or had; never changed. Indexes and evaluations name it by `digest`."""

    id: str
    project_id: str
    dataset_id: str
    digest: str
    manifest_sha256: str
    report_sha256: str
    n_images: int
    size_bytes: int
    n_by_split: dict[str, int]
    job_id: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class ImageSetRecord:
    """Images of a data set under a name; a slice is also a tag. The artifact `sha256` holds their ids, sorted.

    `n_by_split` is as the data set was when its images were chosen last.
    """

    id: str
    project_id: str
    dataset_id: str
    name: str
    purpose: ImageSetPurpose
    sha256: str
    n_images: int
    created_by: str
    created_at: datetime
    note: str = ""
    n_by_split: dict[str, int] = field(default_factory=dict)
    version: int = 1

    def frozen(self) -> FrozenImageSet:
        """As it is now, for a question."""
        return FrozenImageSet(self.id, self.name, self.purpose, self.sha256, self.n_images)


@dataclass(frozen=True)
class IndexRecord:
    """An index of a data set under an SAE. `key` names all that determines its numbers, so the same key is the same
    index; `files` are its files among the artifacts, name to sha256.
    """

    id: str
    project_id: str
    dataset_id: str
    sae_id: str
    key: str
    dataset_digest: str
    model_sha256: str
    sae_sha256: str
    n_images: int
    n_activations: int  # images whose activations were kept
    size_bytes: int
    files: dict[str, str]
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class DescriptionRecord:
    """What the latents of an SAE stand for by an index; the artifact `sha256` holds it. `key` names all that
    determines it.
    """

    id: str
    project_id: str
    sae_id: str
    dataset_id: str
    index_id: str
    key: str
    sha256: str
    n_described: int  # latents that fired at least once
    n_labels: int  # of the vocabulary
    size_bytes: int
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class SessionRecord:
    """A person's log of what they asked and expected."""

    id: str
    project_id: str
    title: str
    created_by: str
    created_at: datetime
    version: int = 1


@dataclass(frozen=True)
class SessionEntry:
    """One line of the log; never changed. `result_id` points to the stored result where there is one."""

    id: str
    session_id: str
    kind: Literal["hypothesis", "note", "result"]
    content: dict[str, Any]
    created_by: str
    created_at: datetime
    result_id: str | None = None
    image_id: str | None = None


@dataclass(frozen=True)
class CorrectionRecord:
    """A named correction; its content lives in its versions."""

    id: str
    project_id: str
    name: str
    created_by: str
    created_at: datetime
    description: str = ""
    state: CorrectionState = "draft"
    model_id: str | None = None
    sae_id: str | None = None
    latest: int = 1  # number of the newest version
    version: int = 1


@dataclass(frozen=True)
class CorrectionVersion:
    """An immutable version; `sha256` is the hash of its canonical JSON."""

    correction_id: str
    number: int
    sha256: str
    correction: Correction
    created_by: str
    created_at: datetime
    note: str = ""


@dataclass(frozen=True)
class ConceptRecord:
    """What people and programs say a latent stands for, newest label first in `history`.

    `created_by` and `created_at` are the label's. `review` is None for one that a program found; where the only label
    was rejected, `label` is empty and counts as found by a program, which may fill it.
    """

    id: str
    project_id: str
    sae_id: str
    latent: int
    created_by: str
    created_at: datetime
    label: str = ""
    label_source: LabelSource = "person"
    label_score: float | None = None
    note: str = ""
    review: LabelReview | None = None
    reviewed_by: str | None = None
    reviewed_at: datetime | None = None
    review_note: str = ""
    history: tuple[EarlierLabel, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class ResultRecord:
    """An answer of the engine as it was given, with what was asked and how it came about; never changed.

    `key` is the hash of question and digests: the same key is the same question of the same model.
    """

    id: str
    project_id: str
    kind: ResultKind
    key: str
    request: dict[str, Any]
    response: dict[str, Any]
    provenance: Provenance
    created_by: str
    created_at: datetime
    image_id: str | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    """What a version of a correction did to a split of a data set; never changed.

    The hashes and `code_version` are what the verdict belongs to. `verdict` is None and `gates` are empty for a sweep.
    `numbers` are those of a summary; everything else lies in the artifacts: the report (JSON), and for a validation the
    table of its images, as columns (npz) and as Parquet. `look` counts from 1 on select and confirm, 0 on discover.
    `image_sets` are those that were judged, as they were.
    """

    id: str
    project_id: str
    kind: EvaluationKind
    correction_id: str
    number: int
    correction_sha256: str
    dataset_id: str
    dataset_digest: str
    split: str
    model_sha256: str
    sae_sha256: str
    code_version: str
    specification_sha256: str
    job_id: str
    report_sha256: str
    created_by: str
    created_at: datetime
    verdict: str | None = None
    badge: str = ""
    look: int = 0
    gates: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    columns_sha256: str | None = None
    parquet_sha256: str | None = None
    image_sets: tuple[FrozenImageSet, ...] = ()


@dataclass(frozen=True)
class ExpertsRecord:
    """Which units know which concepts, by a job; never changed. Everything but a few `numbers` lies in the artifact.

    `units`: latents of an SAE, units of the vision or the text tower, or of a language model, which has a reference in
    place of an id. Data set and digest are None for texts.
    """

    id: str
    project_id: str
    name: str
    units: Literal["latents", "vision", "text", "language"]
    model_id: str | None
    model_sha256: str
    key: str
    sha256: str
    job_id: str
    n_concepts: int
    n_units: int
    n_examples: int
    size_bytes: int
    created_by: str
    created_at: datetime
    sae_id: str | None = None
    sae_sha256: str | None = None
    dataset_id: str | None = None
    dataset_digest: str | None = None
    concept_set_sha256: str | None = None
    language_model: str | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LookRecord:
    """One look of one correction version at one split; `number` counts those of the version at the split from 1."""

    id: str
    project_id: str
    dataset_digest: str
    split: str
    correction_sha256: str
    p: float
    number: int
    job_id: str
    created_at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """Who did what to which thing. `hash` covers the event and `previous_hash`: a removed line shows."""

    sequence: int
    at: datetime
    user_id: str | None
    action: str
    subject: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str
