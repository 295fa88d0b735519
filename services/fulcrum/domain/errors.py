"""Everything that can go wrong in a way that a caller can act on.

    FulcrumError
     ├─ InvalidInput          what was sent cannot be meant: say what is allowed
     │   ├─ UnreadableImage · ImageTooLarge
     │   ├─ EmptyPrompts · InvalidPrompt · InvalidTarget
     │   ├─ InvalidHookPoint · EditCannotReachOutput
     │   ├─ InvalidEdit · LatentOutOfRange
     │   ├─ SaeDoesNotFit · InvalidSaeConfig
     │   ├─ InvalidDataset · DatasetWithoutLabels · SingleClassDataset · MissingFiles
     │   └─ InvalidSettings
     ├─ NotFound              the named thing does not exist here
     │   ├─ UnknownModel · UnknownSae · UnknownDataset
     ├─ CorruptFile           the thing exists, but its bytes are not what they must be
     │   ├─ CorruptCheckpoint · CorruptIndex
     ├─ MissingDependency     an optional package is not installed
     └─ ComputationFailed     the numbers could not be computed (never returned as nan or None)

The domain knows no HTTP or gRPC code; those tables live at the borders.
"""

from typing import ClassVar


class FulcrumError(Exception):
    """Base of all errors a user may see. `reason` is stable and unique for each class."""

    reason: ClassVar[str] = "FULCRUM_ERROR"


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


class CorruptFile(FulcrumError):
    """The bytes are not what they must be."""

    reason = "CORRUPT_FILE"


class CorruptCheckpoint(CorruptFile):
    """Weights that cannot be loaded safely and completely."""

    reason = "CORRUPT_CHECKPOINT"


class CorruptIndex(CorruptFile):
    """A latent index that is incomplete, altered, or of another version."""

    reason = "CORRUPT_INDEX"


class MissingDependency(FulcrumError):
    """An optional package is needed and not installed; the message names it."""

    reason = "MISSING_DEPENDENCY"


class ComputationFailed(FulcrumError):
    """The result could not be computed (non-finite activations, no convergence)."""

    reason = "COMPUTATION_FAILED"
