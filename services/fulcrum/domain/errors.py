"""Everything that can go wrong in a way that a caller can act on.

    FulcrumError
     ├─ InvalidInput          what was sent cannot be meant: say what is allowed
     │   ├─ UnreadableImage · ImageTooLarge
     │   ├─ EmptyPrompts · InvalidPrompt · InvalidTarget
     │   ├─ InvalidHookPoint · EditCannotReachOutput
     │   ├─ InvalidEdit · LatentOutOfRange
     │   ├─ SaeDoesNotFit · InvalidSaeConfig
     │   ├─ InvalidDataset · DatasetWithoutLabels · SingleClassDataset · MissingFiles
     │   ├─ InvalidSettings
     │   └─ InvalidRequest · PayloadTooLarge
     ├─ NotFound              the named thing does not exist here
     │   ├─ UnknownModel · UnknownSae · UnknownDataset · UnknownImageSet
     │   ├─ UnknownImage · UnknownCorrection · UnknownSession · UnknownConcept · UnknownResult
     │   ├─ UnknownEvaluation
     │   ├─ UnknownIndex · UnknownDescription · UnknownExperts
     │   ├─ UnknownProject · UnknownUser · UnknownToken · UnknownArtifact
     │   └─ UnknownJob
     ├─ Denied                who asks may not
     │   ├─ Unauthenticated · Forbidden · ReviewerIsAuthor
     ├─ Conflict              the state of the thing does not allow it
     │   ├─ AlreadyExists · StaleVersion · MissingPrecondition · IdempotencyConflict · AlreadyRunning
     │   ├─ NeededJobFailed · JobFinished · JobUnfinished · QuotaExceeded · NothingToReview
     ├─ Unavailable           may work later: `retry_after_s` says when
     │   ├─ Overloaded · RateLimited · ServiceUnavailable · OutOfMemory · DeadlineExceeded
     ├─ Cancelled             the caller went away, or the job was cancelled
     │   ├─ JobCancelled · LeaseLost
     ├─ CorruptFile           the thing exists, but its bytes are not what they must be
     │   ├─ CorruptCheckpoint · CorruptIndex · CorruptArtifact
     ├─ MissingDependency     an optional package is not installed
     ├─ TooManyAttempts       every worker that took a stage of the job was lost
     ├─ ComputationFailed     the numbers could not be computed (never returned as nan or None)
     └─ InternalError         a bug of ours: the message holds no traceback, the log does

The domain knows no HTTP or gRPC code; those tables live at the borders.
"""

from typing import ClassVar


class FulcrumError(Exception):
    """Base of all errors a user may see. `reason` is stable and unique for each class."""

    reason: ClassVar[str] = "FULCRUM_ERROR"
    retry_after_s: float | None = None  # when the same request may work; None where repeating it is useless


class InvalidInput(FulcrumError):
    """What was sent cannot be meant."""

    reason = "INVALID_INPUT"


class UnreadableImage(InvalidInput):
    """The bytes are not an image that we read (PNG, JPEG, WebP), or it is truncated."""

    reason = "UNREADABLE_IMAGE"


class ImageTooLarge(InvalidInput):
    """The image has more bytes or pixels than the limit."""

    reason = "IMAGE_TOO_LARGE"


class EmptyPrompts(InvalidInput):
    """A class set without classes, or with too few for the question."""

    reason = "EMPTY_PROMPTS"


class InvalidPrompt(InvalidInput):
    """A prompt or template that cannot be encoded (blank, duplicated, too long, no placeholder)."""

    reason = "INVALID_PROMPT"


class InvalidTarget(InvalidInput):
    """The attributed output does not exist (a class that is not in the class set, a margin with itself)."""

    reason = "INVALID_TARGET"


class InvalidHookPoint(InvalidInput):
    """The hook point is malformed or does not exist in this model."""

    reason = "INVALID_HOOK_POINT"


class EditCannotReachOutput(InvalidInput):
    """The edited tokens have no causal path to the output (patch tokens after the last block, CLS pooling)."""

    reason = "EDIT_CANNOT_REACH_OUTPUT"


class InvalidEdit(InvalidInput):
    """An edit, scope or condition with values that make no sense."""

    reason = "INVALID_EDIT"


class LatentOutOfRange(InvalidInput):
    """A latent index outside 0 .. d_sae-1."""

    reason = "LATENT_OUT_OF_RANGE"


class SaeDoesNotFit(InvalidInput):
    """The SAE belongs to another model, hook point or width."""

    reason = "SAE_DOES_NOT_FIT"


class InvalidSaeConfig(InvalidInput):
    """An SAE or trainer configuration with impossible values."""

    reason = "INVALID_SAE_CONFIG"


class InvalidDataset(InvalidInput):
    """The data set's files or columns are not in a format that we read."""

    reason = "INVALID_DATASET"


class DatasetWithoutLabels(InvalidInput):
    """The question needs labels and the data set has none."""

    reason = "DATASET_WITHOUT_LABELS"


class SingleClassDataset(InvalidInput):
    """The question compares classes and the data set has one."""

    reason = "SINGLE_CLASS_DATASET"


class MissingFiles(InvalidInput):
    """The manifest names files that do not exist."""

    reason = "MISSING_FILES"


class InvalidSettings(InvalidInput):
    """A setting or option outside its allowed values."""

    reason = "INVALID_SETTINGS"


class InvalidRequest(InvalidInput):
    """A request whose body, parameters or message cannot be read as what the call takes."""

    reason = "INVALID_REQUEST"


class PayloadTooLarge(InvalidInput):
    """More bytes, rows or items than one call may carry."""

    reason = "PAYLOAD_TOO_LARGE"


class NotFound(FulcrumError):
    """The named thing does not exist here."""

    reason = "NOT_FOUND"


class UnknownModel(NotFound):
    """No such OpenCLIP architecture, pretrained tag or checkpoint."""

    reason = "UNKNOWN_MODEL"


class UnknownSae(NotFound):
    """No SAE at this place."""

    reason = "UNKNOWN_SAE"


class UnknownDataset(NotFound):
    """No data set at this place."""

    reason = "UNKNOWN_DATASET"


class UnknownImage(NotFound):
    """No image of this id or content hash."""

    reason = "UNKNOWN_IMAGE"


class UnknownImageSet(NotFound):
    """No set of images of this id."""

    reason = "UNKNOWN_IMAGE_SET"


class UnknownCorrection(NotFound):
    """No correction, or no version of it, with this id."""

    reason = "UNKNOWN_CORRECTION"


class UnknownSession(NotFound):
    """No session of this id."""

    reason = "UNKNOWN_SESSION"


class UnknownConcept(NotFound):
    """Nothing is recorded about this latent."""

    reason = "UNKNOWN_CONCEPT"


class UnknownResult(NotFound):
    """No stored result of this id."""

    reason = "UNKNOWN_RESULT"


class UnknownEvaluation(NotFound):
    """No evaluation of this id."""

    reason = "UNKNOWN_EVALUATION"


class UnknownIndex(NotFound):
    """The data set was not indexed under this SAE, or there is no index of this id."""

    reason = "UNKNOWN_INDEX"


class UnknownDescription(NotFound):
    """The latents of this SAE were not described yet, or there is no description of this id."""

    reason = "UNKNOWN_DESCRIPTION"


class UnknownExperts(NotFound):
    """No search for experts of this id, or nothing in it under this concept, rule or unit."""

    reason = "UNKNOWN_EXPERTS"


class UnknownProject(NotFound):
    """No project of this id, or none that the asker may know of."""

    reason = "UNKNOWN_PROJECT"


class UnknownUser(NotFound):
    """No user of this id or name."""

    reason = "UNKNOWN_USER"


class UnknownToken(NotFound):
    """No API token, login or login link of this id."""

    reason = "UNKNOWN_TOKEN"


class UnknownArtifact(NotFound):
    """No artifact with this content hash."""

    reason = "UNKNOWN_ARTIFACT"


class UnknownJob(NotFound):
    """No job of this id."""

    reason = "UNKNOWN_JOB"


class Denied(FulcrumError):
    """Who asks may not."""

    reason = "DENIED"


class Unauthenticated(Denied):
    """No valid session, token or internal secret came with the request."""

    reason = "UNAUTHENTICATED"


class Forbidden(Denied):
    """The role or the token does not allow this."""

    reason = "FORBIDDEN"


class ReviewerIsAuthor(Denied):
    """Nobody reviews their own work."""

    reason = "REVIEWER_IS_AUTHOR"


class Conflict(FulcrumError):
    """The state of the thing does not allow what was asked."""

    reason = "CONFLICT"


class AlreadyExists(Conflict):
    """A thing of this name or content exists."""

    reason = "ALREADY_EXISTS"


class StaleVersion(Conflict):
    """The thing changed since it was read."""

    reason = "STALE_VERSION"


class MissingPrecondition(Conflict):
    """The change needs an If-Match header, so that nobody overwrites what they have not seen."""

    reason = "MISSING_PRECONDITION"


class IdempotencyConflict(Conflict):
    """The Idempotency-Key was used with another request, or its first request still runs."""

    reason = "IDEMPOTENCY_CONFLICT"


class AlreadyRunning(Conflict):
    """Another Fulcrum uses this folder or port."""

    reason = "ALREADY_RUNNING"


class NeededJobFailed(Conflict):
    """A job that had to succeed first did not."""

    reason = "NEEDED_JOB_FAILED"


class JobFinished(Conflict):
    """The job has ended: there is nothing left to cancel."""

    reason = "JOB_FINISHED"


class JobUnfinished(Conflict):
    """Only a failed or cancelled job can be tried again, and only one that succeeded has found something."""

    reason = "JOB_UNFINISHED"


class QuotaExceeded(Conflict):
    """The project's data sets would take more room than it has."""

    reason = "QUOTA_EXCEEDED"


class NothingToReview(Conflict):
    """What should be confirmed or rejected does not wait for that: it was decided, or a program made it."""

    reason = "NOTHING_TO_REVIEW"


class Unavailable(FulcrumError):
    """May work later; `retry_after_s` says when."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """The queue is full or the request waited too long in it."""

    reason = "OVERLOADED"


class RateLimited(Unavailable):
    """The asker used up their share for now."""

    reason = "RATE_LIMITED"


class ServiceUnavailable(Unavailable):
    """A service is not reachable, still loading, or draining."""

    reason = "SERVICE_UNAVAILABLE"


class OutOfMemory(Unavailable):
    """The device ran out of memory, also with half the batch."""

    reason = "OUT_OF_MEMORY"


class DeadlineExceeded(Unavailable):
    """The answer did not come within the time that the caller gave."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(FulcrumError):
    """The caller went away; the work was dropped."""

    reason = "CANCELLED"


class JobCancelled(Cancelled):
    """Somebody cancelled the job; its stage ends where it is."""

    reason = "JOB_CANCELLED"


class LeaseLost(Cancelled):
    """Another worker has taken this stage over: whatever this one still finds is dropped."""

    reason = "LEASE_LOST"


class CorruptFile(FulcrumError):
    """The bytes are not what they must be."""

    reason = "CORRUPT_FILE"


class CorruptCheckpoint(CorruptFile):
    """Weights that cannot be loaded safely and completely."""

    reason = "CORRUPT_CHECKPOINT"


class CorruptIndex(CorruptFile):
    """A latent index that is incomplete, altered, or of another version."""

    reason = "CORRUPT_INDEX"


class CorruptArtifact(CorruptFile):
    """Stored bytes whose hash is no longer their name."""

    reason = "CORRUPT_ARTIFACT"


class MissingDependency(FulcrumError):
    """An optional package is needed and not installed; the message names it."""

    reason = "MISSING_DEPENDENCY"


class TooManyAttempts(FulcrumError):
    """A stage of the job was begun again and again and never came to its end."""

    reason = "TOO_MANY_ATTEMPTS"


class ComputationFailed(FulcrumError):
    """The result could not be computed (non-finite activations, no convergence)."""

    reason = "COMPUTATION_FAILED"


class InternalError(FulcrumError):
    """A bug of ours. The message names the request; the traceback stays in the log."""

    reason = "INTERNAL_ERROR"


def by_reason(root: type[FulcrumError] = FulcrumError) -> dict[str, type[FulcrumError]]:
    """The tree above, for who gets an error in words: nothing else subclasses one."""
    found = {root.reason: root}
    for kind in root.__subclasses__():
        found |= by_reason(kind)
    return found
