"""A validation in parts that can run anywhere: what each computes, under which key, and how it is stored.

A part knows nothing of the question around it. The answers of a correction on a split are the same part for a
validation, for a sweep and for somebody else's question, and (as embeddings) for another class set.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.errors import CorruptFile
from fulcrum.domain.jobs import content_key
from fulcrum.engine.dataset_controls import (
    matched_latent_plans,
    predictions_of_plans,
    random_direction_predictions,
)
from fulcrum.engine.dataset_runs import DatasetRun, Numbers, Progress, embeddings_of
from fulcrum.engine.image_batches import BATCH_SIZE
from fulcrum.engine.plan_rows import plan_rows
from fulcrum.science.steering.conditions import needs_logits
from fulcrum.science.steering.edits import EditPlan

Arrays = Mapping[str, NDArray[Any]]

# Counted up when the same part would give other numbers: stored ones are then left behind.
OPERATOR_VERSION = 1
# Affected images of a part: seconds of work, and what a crash loses at most.
IMAGES_PER_PART = 1024
# Far from the size of every other pass: that is the point of the noise floor. (On a CPU sizes from 5 on gave the same
# bits as 32 for the demo model, and 1 and 2 differed in the sixth digit.)
NOISE_BATCH_SIZE = 2


@dataclass(frozen=True)
class AnswersPart:
    """Embeddings of the images of `split` that the plan can change, the `first` to the `last` (exclusive) of them."""

    plan: EditPlan
    split: str
    first: int
    last: int
    kind: Literal["answers"] = "answers"


@dataclass(frozen=True)
class ControlsPart:
    """Predictions of `n_draws` controls of the plan on images `numbers` (ascending)."""

    plan: EditPlan
    controls: Literal["matched_latents", "random_directions"]
    numbers: tuple[int, ...]
    n_draws: int
    seed: int
    kind: Literal["controls"] = "controls"


@dataclass(frozen=True)
class NoisePart:
    """Unedited embeddings once more: as every pass has them, and at another batch size."""

    numbers: tuple[int, ...]
    kind: Literal["noise"] = "noise"


@dataclass(frozen=True)
class RipplePart:
    """How the image maxima of all latents move after re-encoding x' of images `numbers`."""

    plan: EditPlan
    numbers: tuple[int, ...]
    kind: Literal["ripple"] = "ripple"


Part = AnswersPart | ControlsPart | NoisePart | RipplePart
_PARTS: dict[str, type[Part]] = {
    "answers": AnswersPart,
    "controls": ControlsPart,
    "noise": NoisePart,
    "ripple": RipplePart,
}


def part_content(part: Part) -> dict[str, Any]:
    """The part as plain JSON."""
    content: dict[str, Any] = to_json(part)
    return content


def part_from(content: Mapping[str, Any]) -> Part:
    """Inverse of `part_content`. Raises InvalidRequest."""
    kind = _PARTS[content["kind"]]
    return from_json(kind, dict(content))


def part_key(run: DatasetRun, part: Part) -> str:
    """Names everything that determines the result of the part."""
    by_class_set = part.kind == "controls" or (
        part.kind in ("answers", "ripple") and needs_logits(part.plan.conditions)
    )
    return content_key(
        what="validation part",
        operator=OPERATOR_VERSION,
        index=run.index.key.sha256,
        values=run.index.layout.value_dtype,
        batch=BATCH_SIZE,
        part=part_content(part),
        task=to_json(run.task) if by_class_set else None,
    )


def images_of_part(run: DatasetRun, part: AnswersPart) -> Numbers:
    """Numbers of the images that go through the model."""
    return affected_in(run, part.plan, part.split)[part.first : part.last]


def affected_in(run: DatasetRun, plan: EditPlan, split: str) -> Numbers:
    """Images of a split that the plan can change, ascending."""
    return run.affected(plan, np.flatnonzero(run.dataset.splits == split).astype(np.int64))


def answers_parts(
    run: DatasetRun, plan: EditPlan, splits: Sequence[str], size: int = IMAGES_PER_PART
) -> list[AnswersPart]:
    """The parts which together answer for all images of the splits; none where the plan changes nothing."""
    parts = []
    for split in splits:
        n = len(affected_in(run, plan, split))
        parts += [AnswersPart(plan, split, start, min(start + size, n)) for start in range(0, n, size)]
    return parts


def run_part(run: DatasetRun, part: Part, progress: Progress | None = None) -> bytes:
    """What the part computes, as arrays in bytes. Raises what running a plan raises."""
    match part:
        case AnswersPart():
            rows = plan_rows(run, [part.plan], images_of_part(run, part), progress)
            return packed({"numbers": rows.numbers, "embeddings": rows.embeddings})
        case ControlsPart():
            return packed({"predictions": _control_predictions(run, part, progress)})
        case NoisePart():
            return packed(_noise(run, np.array(part.numbers, dtype=np.int64), progress))
        case RipplePart():
            return packed(_ripple(run, part))
        case _:
            assert_never(part)


def packed(arrays: Arrays) -> bytes:
    """Arrays as bytes; the same arrays give the same bytes."""
    stream = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez(stream, **named)  # embeddings hardly compress
    return stream.getvalue()


def unpacked(content: bytes) -> dict[str, NDArray[Any]]:
    """Inverse of `packed`. Raises CorruptFile."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise CorruptFile(f"the stored result of a part cannot be read: {error}") from error


def _control_predictions(run: DatasetRun, part: ControlsPart, progress: Progress | None) -> NDArray[np.int32]:
    numbers = np.array(part.numbers, dtype=np.int64)
    if part.controls == "random_directions":
        found = random_direction_predictions(run, part.plan, numbers, part.n_draws, part.seed, progress)
    else:
        plans = matched_latent_plans(run, part.plan, part.n_draws, part.seed)
        found = predictions_of_plans(run, plans, numbers, progress)
    return found.astype(np.int32)


@torch.no_grad()
def _noise(run: DatasetRun, numbers: Numbers, progress: Progress | None) -> dict[str, NDArray[Any]]:
    identity = np.zeros((len(numbers), run.index.layout.d_embed), dtype=np.float32)
    for chunk, state in run.states(numbers):
        identity[np.searchsorted(numbers, chunk)] = embeddings_of(run.steerable, state).float().cpu().numpy()
    repeat = run.recomputed_embeddings(numbers, NOISE_BATCH_SIZE, progress)
    return {"identity": identity, "repeat": repeat}


def _ripple(run: DatasetRun, part: RipplePart) -> dict[str, NDArray[Any]]:
    before, after = run.image_maxima_before_and_after(part.plan, np.array(part.numbers, dtype=np.int64))
    moved = np.flatnonzero((before != after).any(axis=0))
    change = after[:, moved] - before[:, moved]
    return {
        "latents": moved.astype(np.int64),
        "n_up": (change > _TIE).sum(axis=0),
        "n_down": (change < -_TIE).sum(axis=0),
        "mean_change": change.mean(axis=0, dtype=np.float64),
    }


_TIE = 1e-6  # changes up to here are rounding
