"""The saved intervention: one frozen value, identified by the hash of its canonical JSON."""

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fulcrum.domain.edits import (
    Add,
    Affine,
    Cap,
    Condition,
    Edit,
    Floor,
    LatentCondition,
    MarginCondition,
    MeanAblate,
    PredictedClassCondition,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.errors import InvalidEdit
from fulcrum.domain.tasks import ClassSet

EDIT_KINDS: dict[str, type[Edit]] = {
    "scale": Scale,
    "set": SetTo,
    "cap": Cap,
    "floor": Floor,
    "add": Add,
    "project_out": ProjectOut,
    "mean_ablate": MeanAblate,
    "affine": Affine,
}
CONDITION_KINDS: dict[str, type[Condition]] = {
    "latent": LatentCondition,
    "predicted_class": PredictedClassCondition,
    "margin": MarginCondition,
}


@dataclass(frozen=True)
class Origin:
    """Where a correction came from: on what it was found can never be what proves it (SCIENCE.md 8, trap 14)."""

    kind: str = "manual"  # manual | image_search | group_search | expert_search | import
    image_sha256: tuple[str, ...] = ()
    dataset_digest: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Correction:
    """Edits at one hook point of one model under one SAE, with scope, condition and the task they were made for.

    With the dictionary `units` in the place of an SAE, the latents are the units of the layer.
    Model and SAE are named by the sha256 of their weights: a path or tag may come to mean something else.
    An empty `edits` is the identity. All conditions must hold for the edits to act.
    """

    model_sha256: str
    sae_sha256: str
    hook_point: str
    edits: tuple[Edit, ...]
    scope: Scope = field(default_factory=Scope)
    conditions: tuple[Condition, ...] = ()
    task: ClassSet | None = None
    origin: Origin = field(default_factory=Origin)
    drop_error: bool = False  # the labelled option of SCIENCE.md 4; never the default

    def __post_init__(self) -> None:
        latents = [e.latent for e in self.edits]
        doubles = sorted(n for n, times in Counter(latents).items() if times > 1)[:20]
        if doubles:
            raise InvalidEdit(f"each latent can be edited once in a correction; more than once: {doubles}")

    @property
    def latents(self) -> tuple[int, ...]:
        """The edited latents, in the order of the edits."""
        return tuple(e.latent for e in self.edits)

    def canonical_json(self) -> str:
        """Sorted keys, no spaces; the origin is history, not identity, and stays out."""
        content = to_dict(self)
        del content["origin"]
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @property
    def sha256(self) -> str:
        """Identity of the correction."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def together(first: Correction, second: Correction) -> Correction:
    """Both corrections as one: the edits of the first, then those of the second that the first does not have.

    Raises InvalidEdit when there is no such correction: for other weights, hook point, scope or conditions, and for a
    latent that each edits in its own way.
    """
    for name in ("model_sha256", "sae_sha256", "hook_point", "scope", "conditions", "drop_error"):
        mine, other = getattr(first, name), getattr(second, name)
        if mine != other:
            raise InvalidEdit(
                f"corrections of different {name} cannot be one correction: {mine!r} and {other!r}"
            )
    known = {edit.latent: edit for edit in first.edits}
    clashing = sorted(e.latent for e in second.edits if known.get(e.latent, e) != e)
    if clashing:
        raise InvalidEdit(f"both corrections edit the latents {clashing[:20]}, each in its own way")
    return dataclasses.replace(
        first,
        edits=(*first.edits, *(e for e in second.edits if e.latent not in known)),
        task=first.task if first.task == second.task else None,
        origin=Origin("import", tuple(dict.fromkeys(first.origin.image_sha256 + second.origin.image_sha256))),
    )


def to_dict(correction: Correction) -> dict[str, Any]:
    """Plain JSON-ready values with the field names of the class."""
    # Through JSON, so that what is hashed, written and sent is the same (tuples become lists once).
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(correction)))
    # 1 and 1.0 are the same gain, and -0.0 is 0.0: they must not make two corrections.
    for edit in content["edits"]:
        for key, value in edit.items():
            if key not in ("latent", "kind", "direction"):
                edit[key] = float(value) + 0.0
    for condition in content["conditions"]:
        for key in ("threshold", "below"):
            if key in condition:
                condition[key] = float(condition[key]) + 0.0
    return content


def from_dict(content: dict[str, Any]) -> Correction:
    """Inverse of `to_dict`. Raises InvalidEdit for unknown kinds or fields and for values of the wrong type."""
    try:
        values = dict(content)
        edits = tuple(_one(EDIT_KINDS, e, "edit") for e in values.pop("edits"))
        conditions = tuple(_one(CONDITION_KINDS, c, "condition") for c in values.pop("conditions", ()))
        scope = values.pop("scope", {})
        task = values.pop("task", None)
        origin = values.pop("origin", {})
        if not isinstance(values.get("drop_error", False), bool):
            raise InvalidEdit(f"drop_error must be true or false, got {values['drop_error']!r}")
        for name, listed in (
            ("patches", scope.get("patches", [])),
            ("image_sha256", origin.get("image_sha256", [])),
        ):
            if not isinstance(listed, list | tuple):
                raise InvalidEdit(f"{name} must be a list, got {listed!r}")
        return Correction(
            edits=edits,
            conditions=conditions,
            scope=Scope(scope.get("kind", "all"), tuple(int(p) for p in scope.get("patches", ()))),
            task=None if task is None else ClassSet(tuple(task["names"]), tuple(task["templates"])),
            origin=Origin(**{**origin, "image_sha256": tuple(origin.get("image_sha256", ()))}),
            **values,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidEdit(f"not a correction: {error}") from error


def _one(kinds: dict[str, Any], content: dict[str, Any], what: str) -> Any:
    kind = content.get("kind")
    if kind not in kinds:
        raise InvalidEdit(f"unknown {what} kind {kind!r}: expected one of {sorted(kinds)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    for key, value in values.items():
        if key == "latent" and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidEdit(f"latent of a {kind!r} {what} must be a whole number, got {value!r}")
        if key == "class_names" and not isinstance(value, tuple):
            raise InvalidEdit(f"class_names of a {what} must be a list, got {value!r}")
    return kinds[kind](**values)
