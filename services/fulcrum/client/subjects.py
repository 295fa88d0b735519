"""What a question is about -- image, SAE and class prompts -- and what it tries, in all the forms a person may give."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulcrum.client.answers import (
    Explanation,
    Steering,
)
from fulcrum.client.operations import Bound, Side
from fulcrum.client.pictures import Picture
from fulcrum.client.resources.corrections import Corrections
from fulcrum.client.resources.images import Images
from fulcrum.client.resources.naming import Identified
from fulcrum.client.resources.saes import Saes
from fulcrum.client.steps import Flow
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Condition, Edit, Scope
from fulcrum.domain.errors import EmptyPrompts, InvalidEdit, InvalidRequest
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, ImageRecord, SaeRecord
from fulcrum.domain.tasks import ClassSet

Prompts = Sequence[str] | ClassSet
About = Picture | ImageRecord | Explanation | Steering  # a text is a path, or an id
Change = Edit | Sequence[Edit] | Correction | CorrectionRecord | CorrectionVersion

_IMAGE_ID = re.compile(r"img_[0-9a-z]{26}")


@dataclass(frozen=True)
class Subject:
    """Image, SAE and task, all known to the gateway."""

    image: ImageRecord
    sae: SaeRecord
    task: ClassSet


@dataclass(frozen=True)
class Plan:
    """Edits as the wire takes them, and what they are, for the answer."""

    body: dict[str, Any]
    edits: tuple[Edit, ...]
    scope: Scope
    conditions: tuple[Condition, ...]
    drop_error: bool
    task: ClassSet | None = None


def subject_of(
    bound: Bound[Side],
    image: About,
    prompts: Prompts | None,
    sae: Identified | str | None,
    model: Identified | str | None,
    own_task: ClassSet | None = None,
) -> Flow[Subject]:
    """Uploads and looks up what is not known yet. `own_task` is that of the correction to try, for want of prompts.

    Raises EmptyPrompts where nothing names the classes.
    """
    task = task_of(prompts, image) or own_task
    if task is None:
        raise EmptyPrompts("give class prompts: a list of names or a ClassSet")
    if sae is None and model is None:
        sae = sae_of(image)
    chosen = yield from Saes.choose.flow(bound, sae, model)
    return Subject((yield from image_of(bound, image)), chosen, task)


def image_of(bound: Bound[Side], image: About) -> Flow[ImageRecord]:
    """The record of an image in any form; uploads what is a file."""
    if isinstance(image, ImageRecord):
        return image
    if isinstance(image, Explanation | Steering):
        return image.image
    if isinstance(image, str) and _IMAGE_ID.fullmatch(image) and not Path(image).exists():
        return (yield from Images.get.flow(bound, image))
    return (yield from Images.upload.flow(bound, image))


def plan_of(
    bound: Bound[Side],
    change: Change,
    scope: Scope | None,
    conditions: tuple[Condition, ...],
    drop_error: bool,
) -> Flow[Plan]:
    """Edits or a correction in any form. Raises InvalidEdit where a correction is given and changed at once."""
    extra = scope is not None or bool(conditions) or drop_error
    match change:
        case CorrectionRecord():
            version = yield from Corrections.version.flow(bound, change)
            return (yield from plan_of(bound, version, scope, conditions, drop_error))
        case CorrectionVersion():
            body = {"correction_id": change.correction_id, "number": change.number}
            content = change.correction
        case Correction():
            body, content = {"correction": to_json(change)}, change
        case _:
            edits = tuple(change) if isinstance(change, list | tuple) else (change,)
            scope = scope or Scope()
            body = {
                "edits": to_json(edits),
                "scope": to_json(scope),
                "conditions": to_json(conditions),
                "drop_error": drop_error,
            }
            return Plan(body, edits, scope, conditions, drop_error)
    if extra:
        raise InvalidEdit("scope, conditions and drop_error belong to the correction: change them there")
    return Plan(body, content.edits, content.scope, content.conditions, content.drop_error, content.task)


def task_of(prompts: Prompts | None, about: About) -> ClassSet | None:
    """The prompts as a task, or else that of an earlier answer. Raises InvalidRequest for a single text."""
    if isinstance(prompts, ClassSet):
        return prompts
    if isinstance(prompts, str):
        raise InvalidRequest(f"prompts is one text, {prompts!r}: expected a list of class names")
    if prompts is not None:
        return ClassSet(tuple(prompts))
    return about.task if isinstance(about, Explanation | Steering) else None


def sae_of(about: About) -> SaeRecord | None:
    """The SAE of an earlier answer."""
    return about.sae if isinstance(about, Explanation | Steering) else None
