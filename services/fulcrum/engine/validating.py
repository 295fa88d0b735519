"""A correction on a split of a data set: affected-only answers, controls, noise floor, and the verdict."""

import dataclasses
import getpass
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fulcrum
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import InvalidDataset
from fulcrum.engine.dataset_controls import (
    matched_latent_plans,
    predictions_of_plans,
    random_direction_predictions,
)
from fulcrum.engine.dataset_runs import DatasetRun, Numbers
from fulcrum.engine.local import check_correction
from fulcrum.engine.looks_file import append_look, read_looks
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.looks import Look, Looks
from fulcrum.science.validation.report import ValidationReport, validate
from fulcrum.science.validation.ripple import moves
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.science.validation.verdict import Split

# Called with the name of the step and what is done of how much.
Steps = Callable[[str, int, int], None]

_RIPPLE_IMAGES = 128
# Far from the size of every other pass: that is the point of the noise floor. (On a CPU sizes from 5 on gave the same
# bits as 32 for the demo model, and 1 and 2 differed in the sixth digit.)
_NOISE_BATCH_SIZE = 2


@dataclass(frozen=True)
class Question:
    """What is asked about a correction. `target` (n,) bool marks the failure mode; None takes every image.

    `same_cue_legitimate` (n,) marks images on which the cue may speak (a sticker that tells the truth).
    `concept_bank` are held-out prompts whose nearness to the images is watched.
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


def validate_correction(
    run: DatasetRun, question: Question, looks_path: Path | None = None, on_step: Steps | None = None
) -> Validated:
    """Judges a correction on one split; images of discover count as those it was found on.

    `looks_path` is the file in which looks are counted; the look is recorded before the numbers are returned.
    Raises SaeDoesNotFit, DatasetWithoutLabels, SingleClassDataset, InvalidDataset.
    """
    check_correction(run.steerable, question.correction)
    dataset, plan = run.dataset, EditPlan.of(question.correction)
    splits = dataset.splits
    if question.split not in dataset.split_names:
        raise InvalidDataset(
            f"data set {dataset.name!r} has no split {question.split!r}: it has {list(dataset.split_names)}"
        )
    numbers = np.flatnonzero((splits == question.split) | (splits == "discover")).astype(np.int64)
    judged = numbers[splits[numbers] == question.split]
    # Whatever the splits say now, an image on which the correction was found proves nothing about it.
    seen = np.isin(np.array(dataset.bytes_sha256), question.correction.origin.image_sha256)
    target = np.ones(len(dataset), dtype=bool) if question.target is None else question.target
    step = on_step or (lambda name, done, total: None)

    corrected_embeddings = run.corrected_embeddings(plan, numbers, lambda d, t: step("affected images", d, t))
    corrected = run.logits_of(corrected_embeddings)
    touched = run.affected(plan, judged)
    repeat = run.base_logits[numbers].copy()
    identity = repeat.copy()
    again = np.isin(numbers, touched)
    if len(touched):
        # Noise can only enter where a forward pass is run again; the other answers are the same numbers.
        repeat[again] = run.recomputed_logits(
            touched, _NOISE_BATCH_SIZE, lambda d, t: step("noise floor", d, t)
        )
        identity[again] = run.recomputed_logits(touched)

    control_gains: dict[str, NDArray[np.float64]] = {}
    if question.n_controls:
        control_gains = _control_gains(run, plan, judged[target[judged]], question, step)

    legitimate = question.same_cue_legitimate
    groups: dict[str, NDArray[Any]] = {name: column[numbers] for name, column in dataset.groups.items()}
    pairs = dataset.pair_ids[numbers]
    clusters = np.where(pairs == "", dataset.ids[numbers], pairs)
    looks = read_looks(looks_path) if looks_path is not None else Looks()
    given = ValidationInput(
        base_logits=run.base_logits[numbers],
        corrected_logits=corrected,
        labels=run.labels[numbers],
        class_names=run.head.class_names,
        split=question.split,
        image_ids=dataset.ids[numbers].tolist(),
        splits=splits[numbers],
        target=None if question.target is None else target[numbers],
        seen=seen[numbers],
        condition_met=_condition_met(run, plan, numbers),
        same_cue_legitimate=None if legitimate is None else legitimate[numbers],
        groups=groups,
        clusters=clusters,
        base_embeddings=run.base_embeddings.cpu().numpy()[numbers],
        corrected_embeddings=corrected_embeddings.cpu().numpy(),
        concept_bank=question.concept_bank,
        latents=_moved_latents(run, plan, touched[~target[touched]], touched),
        control_gains=control_gains,
        repeat_logits=repeat,
        identity_logits=identity,
        looks=looks,
        subject=subject_of(run, question.correction),
        provenance=provenance(run, question),
    )
    report = validate(given, question.specification)
    if looks_path is not None:
        p = report.overall.p if report.target is None else report.target.p
        look = Look(question.correction.sha256, dataset.digest, question.split, p)
        append_look(looks_path, look)
        if question.split == "select":
            # This look is one of those that it has to be adjusted for.
            counted = looks.record(look).selection(look.correction_sha256, look.dataset_digest)
            report = dataclasses.replace(report, selection=counted)
    counts = run.counts
    return Validated(report, given, numbers, len(touched), counts.prefix_images, counts.suffix_rows)


def subject_of(run: DatasetRun, correction: Correction) -> Subject:
    """What the verdict belongs to."""
    return Subject(
        correction_sha256=correction.sha256,
        dataset_digest=run.dataset.digest,
        model_sha256=run.steerable.loaded.info.weights_sha256,
        sae_sha256=run.steerable.sae_info.weights_sha256,
        code_version=fulcrum.__version__,
    )


def provenance(run: DatasetRun, question: Question) -> dict[str, Any]:
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
        "device": info.device,
        "dtype": info.dtype,
        "code_version": fulcrum.__version__,
        "libraries": {
            name: importlib.metadata.version(name) for name in ("torch", "open_clip_torch", "numpy", "scipy")
        },
        "python": platform.python_version(),
        "user": _user(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _user() -> str:
    """Name of the account; its number where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _control_gains(
    run: DatasetRun, plan: EditPlan, targets: Numbers, question: Question, step: Steps
) -> dict[str, NDArray[np.float64]]:
    """Net gain of every control on (a sample of) the judged images of the failure mode."""
    targets = targets[run.labels[targets] >= 0]
    if not len(targets):
        return {}
    if len(targets) > question.max_control_images:
        rng = np.random.default_rng([question.seed, 2])
        targets = np.sort(rng.choice(targets, question.max_control_images, replace=False))
    labels = run.labels[targets]
    before = (run.base_logits[targets].argmax(axis=1) == labels).mean()
    n, seed = question.n_controls, question.seed
    predicted = {
        "matched_latents": predictions_of_plans(
            run,
            matched_latent_plans(run, plan, n, seed),
            targets,
            lambda d, t: step("controls: matched latents", d, t),
        ),
        "random_directions": random_direction_predictions(
            run, plan, targets, n, seed, lambda d, t: step("controls: random directions", d, t)
        ),
    }
    return {kind: (p == labels).mean(axis=1) - before for kind, p in predicted.items() if len(p)}


def _condition_met(run: DatasetRun, plan: EditPlan, numbers: Numbers) -> NDArray[np.bool_] | None:
    if not plan.conditions:
        return None
    return run.condition_met(plan, numbers)


@torch.no_grad()
def _moved_latents(run: DatasetRun, plan: EditPlan, others: Numbers, touched: Numbers) -> Any:
    """Paired sign tests of every other latent's image maximum after re-encoding x'.

    On the touched images outside the failure mode, as many as `_RIPPLE_IMAGES`; on all touched ones where
    there are fewer than ten of these.
    """
    chosen = (others if len(others) >= 10 else touched)[:_RIPPLE_IMAGES]
    if not len(chosen):
        return ()
    before, after = run.image_maxima_before_and_after(plan, chosen)
    edited = {e.latent for e in plan.edits}
    kept = [j for j in range(before.shape[1]) if j not in edited and (before[:, j] != after[:, j]).any()]
    if not kept:
        return ()
    found = moves([str(j) for j in kept], before[:, kept], after[:, kept])
    return tuple(sorted(found, key=lambda m: (m.q, -abs(m.mean_change)))[:50])
