"""Edits of latents, where they act and when.

Every edit is `x' = x + (z' - z) W_dec / s` per token in scope, with z from the unedited x (SCIENCE.md 4). Where the
dictionary is the units of a layer themselves, `latent` is the number of the unit, and z may be negative.
"""

import math
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.errors import InvalidEdit, LatentOutOfRange


def _check(kind: str, latent: int, **values: float) -> None:
    if latent < 0:
        raise LatentOutOfRange(f"latent {latent} of a {kind!r} edit is negative")
    for name, value in values.items():
        if not math.isfinite(value):
            raise InvalidEdit(f"{name} of the {kind!r} edit on latent {latent} is {value}: it must be finite")


@dataclass(frozen=True)
class Scale:
    """`z' = gain * z`: 0 suppresses, 1 changes nothing, above 1 amplifies. Acts only where the latent fires."""

    latent: int
    gain: float
    kind: Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, gain=self.gain)


@dataclass(frozen=True)
class SetTo:
    """`z' = value` everywhere in scope, also where the latent is silent. `value` in the latent's own units."""

    latent: int
    value: float
    kind: Literal["set"] = "set"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, value=self.value)


@dataclass(frozen=True)
class Cap:
    """`z' = min(z, value)`; `value >= 0`, so that nothing changes where the latent is silent."""

    latent: int
    value: float
    kind: Literal["cap"] = "cap"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, value=self.value)
        if self.value < 0:
            raise InvalidEdit(
                f"cap of latent {self.latent} is {self.value}: latents are >= 0, so it must be >= 0"
            )


@dataclass(frozen=True)
class Floor:
    """`z' = max(z, value)`; acts everywhere in scope when `value > 0`."""

    latent: int
    value: float
    kind: Literal["floor"] = "floor"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, value=self.value)


@dataclass(frozen=True)
class Add:
    """`z' = z + value` everywhere in scope."""

    latent: int
    value: float
    kind: Literal["add"] = "add"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, value=self.value)


@dataclass(frozen=True)
class ProjectOut:
    """`x' = x - (1 - keep) P x`, P the projector on the latent's decoder (or encoder) direction."""

    latent: int
    keep: float = 0.0
    direction: Literal["decoder", "encoder"] = "decoder"
    kind: Literal["project_out"] = "project_out"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, keep=self.keep)
        if self.direction not in ("decoder", "encoder"):
            raise InvalidEdit(
                f"direction {self.direction!r} of latent {self.latent} is not decoder or encoder"
            )


@dataclass(frozen=True)
class MeanAblate:
    """`z' = mean`, the latent's mean over the tokens of a data set: a better baseline than 0 for dense latents."""

    latent: int
    mean: float
    kind: Literal["mean_ablate"] = "mean_ablate"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, mean=self.mean)


@dataclass(frozen=True)
class Affine:
    """`z' = gain * z + shift` everywhere in scope: what transports of distributions and partly set values are."""

    latent: int
    gain: float
    shift: float
    kind: Literal["affine"] = "affine"

    def __post_init__(self) -> None:
        _check(self.kind, self.latent, gain=self.gain, shift=self.shift)


Edit = Scale | SetTo | Cap | Floor | Add | ProjectOut | MeanAblate | Affine


@dataclass(frozen=True)
class Scope:
    """Which tokens an edit touches. `patches` (row-major patch numbers from 0) only with kind `patch_list`."""

    kind: Literal["all", "cls", "patches", "patch_list"] = "all"
    patches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("all", "cls", "patches", "patch_list"):
            raise InvalidEdit(f"scope {self.kind!r} is not one of all, cls, patches, patch_list")
        if self.kind == "patch_list" and not self.patches:
            raise InvalidEdit("scope 'patch_list' needs at least one patch")
        if self.kind != "patch_list" and self.patches:
            raise InvalidEdit(f"scope {self.kind!r} takes no list of patches")
        if any(p < 0 for p in self.patches):
            raise InvalidEdit(f"patch numbers must be >= 0, got {min(self.patches)}")


@dataclass(frozen=True)
class LatentCondition:
    """True when the image maximum of the unedited latent compares so with the threshold."""

    latent: int
    operator: Literal[">=", "<="]
    threshold: float
    kind: Literal["latent"] = "latent"

    def __post_init__(self) -> None:
        _check("condition", self.latent, threshold=self.threshold)
        if self.operator not in (">=", "<="):
            raise InvalidEdit(f"operator {self.operator!r} of a latent condition is not >= or <=")


@dataclass(frozen=True)
class PredictedClassCondition:
    """True when the unedited prediction is one of the classes."""

    class_names: tuple[str, ...]
    kind: Literal["predicted_class"] = "predicted_class"

    def __post_init__(self) -> None:
        if not self.class_names:
            raise InvalidEdit("a predicted-class condition needs at least one class")


@dataclass(frozen=True)
class MarginCondition:
    """True when the unedited margin of the prediction over the runner-up (in logits) is below `below`."""

    below: float
    kind: Literal["margin"] = "margin"

    def __post_init__(self) -> None:
        if not math.isfinite(self.below):
            raise InvalidEdit(f"margin condition below={self.below}: it must be finite")


Condition = LatentCondition | PredictedClassCondition | MarginCondition


def acts_only_where_it_fires(edit: Edit) -> bool:
    """Whether the edit leaves every token with z = 0 untouched, which is what affected-only evaluation needs."""
    match edit.kind:
        case "scale" | "cap":
            return True
        case "floor":
            return edit.value <= 0
        case "mean_ablate":
            return edit.mean == 0
        case "set":
            return edit.value == 0
        case "add":
            return edit.value == 0
        case "affine":
            return edit.shift == 0
        case "project_out":
            return False
