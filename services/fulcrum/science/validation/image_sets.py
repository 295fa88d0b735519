"""Sets of images that somebody chose: slices judged beside those of columns, and lists that keep their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.arrays import check_mask
from fulcrum.science.validation.gates import Gate, State
from fulcrum.science.validation.groups import Group, Members

Purpose = Literal["slice", "invariant"]
SET_COLUMN = "set"  # of their rows in the slice table
SET_PREFIX = "set:"  # of their columns in the table of images
MOST_NAMED = 20  # changed images that a report names
_NAMED_IN_REASON = 3


@dataclass(frozen=True)
class ImageSet:
    """`images` (n,) bool marks its rows; `n_elsewhere` more are of splits that are not among the rows, and `n_gone`
    the data set does not have any more.
    """

    name: str
    purpose: Purpose
    images: NDArray[Any]
    n_elsewhere: int = 0
    n_gone: int = 0


@dataclass(frozen=True)
class JudgedSet:
    """Where the `n` images of a set went: evaluated, left out (seen or leaked), of other splits, gone.

    `changed` of the evaluated ones have another answer than before, labelled or not; `changed_ids` names the first.
    """

    name: str
    purpose: Purpose
    n: int
    evaluated: int
    left_out: int
    other_splits: int
    gone: int
    changed: int
    changed_ids: tuple[str, ...]


def set_columns(sets: Sequence[ImageSet], n: int) -> dict[str, NDArray[np.bool_]]:
    """A column for each set. Raises InvalidInput for two of one name, or another length than `n`."""
    columns: dict[str, NDArray[np.bool_]] = {}
    for chosen in sets:
        name = SET_PREFIX + chosen.name
        if name in columns:
            raise InvalidInput(f"two image sets are called {chosen.name!r}: names must differ")
        columns[name] = check_mask(f"images of the set {chosen.name!r}", chosen.images, n)
    return columns


def set_members(sets: Sequence[ImageSet], table: dict[str, NDArray[Any]]) -> list[Members]:
    """The sets as slices of these rows."""
    return [
        (Group((SET_COLUMN,), (s.name,)), np.flatnonzero(table[SET_PREFIX + s.name]).astype(np.int64))
        for s in sets
    ]


def judged_set(chosen: ImageSet, table: dict[str, NDArray[Any]], split: str) -> JudgedSet:
    """What became of a set, from the table of images."""
    inside, of_split = table[SET_PREFIX + chosen.name], table["split"] == split
    evaluated = inside & table["evaluated"]
    changed = evaluated & (table["base_prediction"] != table["corrected_prediction"])
    elsewhere = int((inside & ~of_split).sum()) + chosen.n_elsewhere
    return JudgedSet(
        name=chosen.name,
        purpose=chosen.purpose,
        n=int(inside.sum()) + chosen.n_elsewhere + chosen.n_gone,
        evaluated=int(evaluated.sum()),
        left_out=int((inside & of_split & ~table["evaluated"]).sum()),
        other_splits=elsewhere,
        gone=chosen.n_gone,
        changed=int(changed.sum()),
        changed_ids=tuple(np.sort(table["id"][changed])[:MOST_NAMED].tolist()),
    )


def invariant_gate(judged: JudgedSet) -> Gate:
    """Passes when no evaluated image of the list has another answer, fails when one has; undecided without any.

    A count, not an estimate: the images were named beforehand, so there is nothing to infer and no bound to meet.
    """
    population = f"images of the list {judged.name!r}"
    state: State = "undecided"
    if judged.evaluated:
        state = "fail" if judged.changed else "pass"
        reason = f"{judged.changed} of {judged.evaluated} changed their answer (allowed 0)"
        if judged.changed:
            named = ", ".join(judged.changed_ids[:_NAMED_IN_REASON])
            reason += f": {named}" + (", ..." if judged.changed > _NAMED_IN_REASON else "")
        if judged.n > judged.evaluated:
            reason += f"; {_elsewhere(judged)} are not judged here"
    else:
        reason = f"none of its {judged.n} images is judged here: {_elsewhere(judged)}"
    return Gate(
        f"invariant images keep their answer: {judged.name}",
        "harm",
        state,
        reason,
        estimate=judged.changed / judged.evaluated if judged.evaluated else None,
        margin=0.0,
        n=judged.evaluated,
        population=population,
    )


def _elsewhere(judged: JudgedSet) -> str:
    counts = (
        (judged.other_splits, "of other splits"),
        (judged.left_out, "seen or leaked"),
        (judged.gone, "not in the data set any more"),
    )
    return ", ".join(f"{n} {what}" for n, what in counts if n)
