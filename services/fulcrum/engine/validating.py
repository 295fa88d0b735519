"""A correction on a split of a data set: affected-only answers, controls, noise floor, and the verdict."""

import getpass
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import fulcrum
from fulcrum.datasets.clusters import clusters_of
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import InvalidDataset
from fulcrum.engine.dataset_runs import DatasetRun, Numbers
from fulcrum.engine.local import check_correction
from fulcrum.engine.looks_file import append_look, read_looks
from fulcrum.engine.validation_parts import (
    IMAGES_PER_PART,
    AnswersPart,
    ControlsPart,
    NoisePart,
    Part,
    RipplePart,
    answers_parts,
    run_part,
    unpacked,
)
from fulcrum.science.steering.edits import EditPlan, check_plan
from fulcrum.science.validation.controls import gains_of_predictions
from fulcrum.science.validation.image_sets import ImageSet, Purpose
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.report import ValidationReport, look_of, validate, with_look
from fulcrum.science.validation.ripple import Move, moves_from_counts
from fulcrum.science.validation.slices import bin_covariate
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.science.validation.verdict import Split

# Called with the name of the step and what is done of how much.
Steps = Callable[[str, int, int], None]

# What progress says while a part runs.
PART_NAMES = {
    "answers": "affected images",
    "controls": "controls",
    "noise": "noise floor",
    "ripple": "other latents",
}

_RIPPLE_IMAGES = 128
# Noise is a property of the machine and its batch sizes more than of an image; each image costs two passes.
_NOISE_IMAGES = 128


@dataclass(frozen=True)
class ChosenImages:
    """An image set: ids of images of the data set, of any split; `sha256` names them."""

    name: str
    purpose: Purpose
    ids: frozenset[str]
    sha256: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked about a correction. `target` (n,) bool marks the failure mode; None takes every image.

    `same_cue_legitimate` (n,) marks images on which the cue may speak (a sticker that tells the truth).
    `concept_bank` are held-out prompts whose nearness to the images is watched, `image_sets` are judged as slices too.
    Controls are run on at most `max_control_images` images of the failure mode, drawn by `seed`: 100 draws of each of
    two kinds are 200 times the work of the correction itself, and some hundred images show their spread well.
    """

    correction: Correction
    split: Split
    target: NDArray[np.bool_] | None = None
    same_cue_legitimate: NDArray[np.bool_] | None = None
    specification: Specification = field(default_factory=Specification)
    n_controls: int = 100
    max_control_images: int = 300
    concept_bank: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    image_sets: tuple[ChosenImages, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Validated:
    """The report with the arrays it was computed from; `numbers` are the images of the rows."""

    report: ValidationReport
    given: ValidationInput
    numbers: Numbers
    n_affected: int
    prefix_images: int
    suffix_rows: int


@dataclass(frozen=True)
class ValidationPlan:
    """What has to be computed before a question can be judged: everything is known but what the model says.

    `numbers` are the judged images and those of discover; `touched` the judged ones that the correction can change.
    """

    numbers: Numbers
    touched: Numbers
    answers: tuple[AnswersPart, ...]
    controls: tuple[ControlsPart, ...]
    noise: NoisePart | None
    ripple: RipplePart | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them, in the order in which `assemble` takes their results."""
        rest = tuple(p for p in (self.noise, self.ripple) if p is not None)
        return (*self.answers, *self.controls, *rest)


def plan_validation(
    run: DatasetRun, question: Question, images_per_part: int = IMAGES_PER_PART
) -> ValidationPlan:
    """The parts of a question; no forward pass.

    Raises SaeDoesNotFit, InvalidDataset (no such split), and what a correction that cannot act raises.
    """
    check_correction(run.steerable, question.correction)
    dataset, plan = run.dataset, EditPlan.of(question.correction)
    check_plan(run.steerable.tower, run.steerable.sae, plan)
    splits = dataset.splits
    if question.split not in dataset.split_names:
        raise InvalidDataset(
            f"data set {dataset.name!r} has no split {question.split!r}: it has {list(dataset.split_names)}"
        )
    numbers = np.flatnonzero((splits == question.split) | (splits == "discover")).astype(np.int64)
    judged = numbers[splits[numbers] == question.split]
    touched = run.affected(plan, judged)
    target = _target(run, question)
    controls: list[ControlsPart] = []
    drawn = control_images(run, judged[target[judged]], question)
    if question.n_controls and len(drawn):
        kinds: tuple[Literal["matched_latents", "random_directions"], ...] = (
            "matched_latents",
            "random_directions",
        )
        images = tuple(drawn.tolist())
        controls = [ControlsPart(plan, k, images, question.n_controls, question.seed) for k in kinds]
    noisy = _sample(touched, _NOISE_IMAGES, [question.seed, 3])
    others = touched[~target[touched]]
    moving = (others if len(others) >= 10 else touched)[:_RIPPLE_IMAGES]
    return ValidationPlan(
        numbers,
        touched,
        tuple(
            answers_parts(
                run,
                plan,
                [n for n in dataset.split_names if n in (question.split, "discover")],
                images_per_part,
            )
        ),
        tuple(controls),
        NoisePart(tuple(noisy.tolist())) if len(noisy) else None,
        RipplePart(plan, tuple(moving.tolist())) if len(moving) else None,
    )


def assemble(
    run: DatasetRun, question: Question, planned: ValidationPlan, results: Sequence[bytes], user: str = ""
) -> ValidationInput:
    """The arrays of a validation from the results of its parts, in their order. Raises CorruptFile."""
    dataset, numbers = run.dataset, planned.numbers
    stored = dict(zip(planned.parts, (unpacked(r) for r in results), strict=True))
    base_embeddings = run.base_embeddings_of(numbers).cpu().numpy()
    base = run.base_logits_of(numbers)
    corrected_embeddings, corrected = corrected_answers(
        run, numbers, base_embeddings, base, [stored[p] for p in planned.answers]
    )

    repeat, identity = base.copy(), base.copy()
    if planned.noise is not None:
        # Noise can only enter where a forward pass is run again; the other answers are the same numbers.
        at = np.searchsorted(numbers, np.array(planned.noise.numbers, dtype=np.int64))
        for logits, name in ((repeat, "repeat"), (identity, "identity")):
            logits[at] = run.logits_of(torch.from_numpy(stored[planned.noise][name]).to(run.device))

    latents: tuple[Move, ...] = ()
    if planned.ripple is not None:
        latents = _moves(stored[planned.ripple], {e.latent for e in question.correction.edits})
    # Whatever the splits say now, an image on which the correction was found proves nothing about it.
    seen = np.isin(np.array(dataset.bytes_sha256), question.correction.origin.image_sha256)
    plan = EditPlan.of(question.correction)
    legitimate = question.same_cue_legitimate
    return ValidationInput(
        base_logits=base,
        corrected_logits=corrected,
        labels=run.labels[numbers],
        class_names=run.head.class_names,
        split=question.split,
        image_ids=dataset.ids[numbers].tolist(),
        splits=dataset.splits[numbers],
        target=None if question.target is None else question.target[numbers],
        seen=seen[numbers],
        condition_met=run.condition_met(plan, numbers) if plan.conditions else None,
        same_cue_legitimate=None if legitimate is None else legitimate[numbers],
        groups=slice_columns(dataset, numbers),
        clusters=clusters_of(dataset)[numbers],
        image_sets=tuple(_image_set(dataset, numbers, chosen) for chosen in question.image_sets),
        base_embeddings=base_embeddings,
        corrected_embeddings=corrected_embeddings,
        concept_bank=question.concept_bank,
        latents=latents,
        control_gains=_control_gains(run, planned, stored),
        repeat_logits=repeat,
        identity_logits=identity,
        subject=subject_of(run, question.correction),
        provenance=provenance(run, question, user)
        | {"noise_floor_images": 0 if planned.noise is None else len(planned.noise.numbers)},
    )


def corrected_answers(
    run: DatasetRun,
    numbers: Numbers,
    base_embeddings: NDArray[np.float32],
    base: NDArray[np.float64],
    parts: Sequence[Mapping[str, NDArray[Any]]],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Embeddings and logits of the ascending `numbers` under a correction, from the results of its answers parts.

    Images of no part keep the base answers, and those of parts that are not among `numbers` are passed over.
    """
    embeddings = base_embeddings.copy()
    for rows in parts:
        asked = np.isin(rows["numbers"], numbers)
        embeddings[np.searchsorted(numbers, rows["numbers"][asked])] = rows["embeddings"][asked]
    changed = (embeddings != base_embeddings).any(axis=1)
    logits = base.copy()
    logits[changed] = run.logits_of(torch.from_numpy(embeddings[changed]).to(run.device))
    return embeddings, logits


def validate_correction(
    run: DatasetRun,
    question: Question,
    looks_path: Path | None = None,
    on_step: Steps | None = None,
    images_per_part: int = IMAGES_PER_PART,
) -> Validated:
    """Judges a correction on one split, here and now; images of discover count as those it was found on.

    `looks_path` is the file in which looks are counted; the look is recorded before the numbers are returned.
    Raises SaeDoesNotFit, DatasetWithoutLabels, SingleClassDataset, InvalidDataset.
    """
    step = on_step or (lambda name, done, total: None)
    planned = plan_validation(run, question, images_per_part)
    results = []
    for part in planned.parts:
        results.append(run_part(run, part, partial(step, PART_NAMES[part.kind])))
    given = assemble(run, question, planned, results)
    report = validate(given, question.specification)
    if looks_path is not None:
        look = look_of(report)
        looks = read_looks(looks_path)
        append_look(looks_path, look)
        report = with_look(report, looks, look)
    counts = run.counts
    return Validated(
        report, given, planned.numbers, len(planned.touched), counts.prefix_images, counts.suffix_rows
    )


def control_images(run: DatasetRun, targets: Numbers, question: Question) -> Numbers:
    """The labelled ones of `targets`, at most `max_control_images`."""
    return _sample(targets[run.labels[targets] >= 0], question.max_control_images, [question.seed, 2])


def slice_columns(dataset: Dataset, numbers: Numbers) -> dict[str, NDArray[Any]]:
    """Group columns, and covariates as quantile bins of these images."""
    groups: dict[str, NDArray[Any]] = {name: column[numbers] for name, column in dataset.groups.items()}
    for name, values in dataset.covariates.items():
        groups.setdefault(name, bin_covariate(values[numbers]))
    return groups


def _image_set(dataset: Dataset, numbers: Numbers, chosen: ChosenImages) -> ImageSet:
    inside = np.isin(dataset.ids, sorted(chosen.ids))
    there, here = int(inside.sum()), inside[numbers]
    return ImageSet(
        chosen.name,
        chosen.purpose,
        here,
        n_elsewhere=there - int(here.sum()),
        n_gone=len(chosen.ids) - there,
    )


def subject_of(run: DatasetRun, correction: Correction) -> Subject:
    """What the verdict belongs to."""
    return Subject(
        correction_sha256=correction.sha256,
        dataset_digest=run.dataset.digest,
        model_sha256=run.steerable.loaded.info.weights_sha256,
        sae_sha256=run.steerable.sae_info.weights_sha256,
        code_version=fulcrum.__version__,
    )


def provenance(run: DatasetRun, question: Question, user: str = "") -> dict[str, Any]:
    """Everything that is needed to compute the numbers again."""
    info = run.steerable.loaded.info
    task = run.task
    return {
        "model_name": info.ref.model_name.rpartition("/")[2],
        "model_sha256": info.weights_sha256,
        "preprocess_sha256": info.preprocess_sha256,
        "sae_sha256": run.steerable.sae_info.weights_sha256,
        "hook_point": str(run.steerable.sae_info.hook_point),
        "class_names": list(task.names),
        "templates": list(task.templates),
        "logit_scale": info.logit_scale,
        "logit_bias": info.logit_bias,
        "dataset": run.dataset.name,
        "dataset_digest": run.dataset.digest,
        "correction_sha256": question.correction.sha256,
        "specification_sha256": question.specification.sha256,
        "split": question.split,
        "seed": question.seed,
        "n_controls": question.n_controls,
        "image_sets": [
            {"name": s.name, "purpose": s.purpose, "sha256": s.sha256} for s in question.image_sets
        ],
        "device": info.device,
        "dtype": info.dtype,
        "code_version": fulcrum.__version__,
        "libraries": {
            name: importlib.metadata.version(name) for name in ("torch", "open_clip_torch", "numpy", "scipy")
        },
        "python": platform.python_version(),
        "user": user or _user(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _user() -> str:
    """Name of the account; its number where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _target(run: DatasetRun, question: Question) -> NDArray[np.bool_]:
    return np.ones(len(run.dataset), dtype=bool) if question.target is None else question.target


def _sample(numbers: Numbers, most: int, seed: Sequence[int]) -> Numbers:
    if len(numbers) <= most:
        return numbers
    return np.sort(np.random.default_rng(seed).choice(numbers, most, replace=False))


def _control_gains(
    run: DatasetRun, planned: ValidationPlan, stored: Mapping[Part, Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[np.float64]]:
    """Net gain of every control on the judged images of the failure mode that were drawn."""
    gains: dict[str, NDArray[np.float64]] = {}
    for part in planned.controls:
        numbers = np.array(part.numbers, dtype=np.int64)
        before = run.base_logits_of(numbers).argmax(axis=1)
        predicted = stored[part]["predictions"]
        if len(predicted):
            gains[part.controls] = gains_of_predictions(run.labels[numbers], before, predicted)
    return gains


def _moves(found: Mapping[str, NDArray[Any]], edited: set[int]) -> tuple[Move, ...]:
    """The other latents that moved, most surely moved first."""
    kept = ~np.isin(found["latents"], list(edited))
    if not kept.any():
        return ()
    tested = moves_from_counts(
        [str(j) for j in found["latents"][kept]],
        found["n_up"][kept],
        found["n_down"][kept],
        found["mean_change"][kept],
    )
    return tuple(sorted(tested, key=lambda m: (m.q, -abs(m.mean_change)))[:50])
