"""When a verdict belongs to the past."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """What a verdict belongs to; any change makes it stale. Hashes, except for the code's version."""

    correction_sha256: str
    dataset_digest: str
    model_sha256: str
    sae_sha256: str
    code_version: str


@dataclass(frozen=True)
class Change:
    """One part of the subject that is not what it was."""

    part: str
    then: str
    now: str


def changes(then: Subject, now: Subject) -> tuple[Change, ...]:
    """What changed since; empty while the verdict is of today."""
    return tuple(
        Change(f.name, getattr(then, f.name), getattr(now, f.name))
        for f in dataclasses.fields(Subject)
        if getattr(then, f.name) != getattr(now, f.name)
    )


def is_stale(then: Subject, now: Subject) -> bool:
    """Whether anything changed that the verdict belongs to."""
    return bool(changes(then, now))
