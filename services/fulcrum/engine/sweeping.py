"""A correction at many gains on a split of a data set, with the cloud of its matched controls."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import InvalidEdit
from fulcrum.engine.dataset_runs import DatasetRun, Numbers
from fulcrum.engine.validating import (
    Question,
    ValidationPlan,
    assemble,
    control_images,
    plan_validation,
    provenance,
)
from fulcrum.engine.validation_parts import IMAGES_PER_PART, ControlsPart, Part, run_part, unpacked
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.sweep import ControlPoint, SweepReport, control_points, swept


def at_gain(correction: Correction, gain: float) -> Correction:
    """The correction with all its `scale` edits at this gain; edits of other kinds stay.

    Raises InvalidEdit when it has no `scale` edit.
    """
    if not any(e.kind == "scale" for e in correction.edits):
        kinds = sorted({e.kind for e in correction.edits})
        raise InvalidEdit(f"a sweep varies gains, and this correction has edits of kind {kinds} only")
    edits = tuple(Scale(e.latent, gain) if e.kind == "scale" else e for e in correction.edits)
    return dataclasses.replace(correction, edits=edits)


@dataclass(frozen=True)
class SweepPlan:
    """The parts of a sweep. `target_controls` and `other_controls` are the same controls on two samples of images."""

    gains: dict[float, ValidationPlan]
    target_controls: ControlsPart | None
    other_controls: ControlsPart | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them, in the order in which `assemble_sweep` takes their results."""
        answers = tuple(p for plan in self.gains.values() for p in plan.answers)
        return (*answers, *(c for c in (self.target_controls, self.other_controls) if c is not None))


def plan_sweep(
    run: DatasetRun, question: Question, gains: Sequence[float], images_per_part: int = IMAGES_PER_PART
) -> SweepPlan:
    """The parts of a sweep over `gains`; no forward pass. Raises InvalidEdit and what `plan_validation` raises."""
    plans = {}
    for gain in sorted(set(gains)):
        one = dataclasses.replace(question, correction=at_gain(question.correction, gain), n_controls=0)
        planned = plan_validation(run, one, images_per_part)
        plans[gain] = dataclasses.replace(planned, noise=None, ripple=None)
    judged = np.flatnonzero(run.dataset.splits == question.split).astype(np.int64)
    inside = np.ones(len(judged), dtype=bool) if question.target is None else question.target[judged]

    def controls(images: Numbers) -> ControlsPart | None:
        drawn = control_images(run, images, question)
        if not question.n_controls or not len(drawn):
            return None
        plan = EditPlan.of(question.correction)
        return ControlsPart(
            plan, "matched_latents", tuple(drawn.tolist()), question.n_controls, question.seed
        )

    return SweepPlan(plans, controls(judged[inside]), controls(judged[~inside]))


def assemble_sweep(
    run: DatasetRun, question: Question, planned: SweepPlan, results: Sequence[bytes], user: str = ""
) -> SweepReport:
    """The report from the results of the parts, in their order. Raises CorruptFile, InvalidDataset."""
    stored = dict(zip(planned.parts, results, strict=True))
    given, names = {}, {}
    for gain, plan in planned.gains.items():
        correction = at_gain(question.correction, gain)
        one = dataclasses.replace(question, correction=correction, n_controls=0)
        given[gain] = assemble(run, one, plan, [stored[p] for p in plan.parts], user)
        names[gain] = correction.sha256
    points: tuple[ControlPoint, ...] = ()
    parts = [p for p in (planned.target_controls, planned.other_controls) if p is not None]
    numbers = np.array([n for p in parts for n in p.numbers], dtype=np.int64)
    if parts:
        predicted = np.concatenate([unpacked(stored[p])["predictions"] for p in parts], axis=1)
        target = np.ones(len(run.dataset), dtype=bool) if question.target is None else question.target
        base = run.base_logits_of(numbers).argmax(axis=1)
        points = control_points(run.labels[numbers], base, target[numbers], predicted)
    origin = provenance(run, question, user)
    return swept(given, names, points, len(numbers), question.specification, origin)


def sweep_correction(
    run: DatasetRun, question: Question, gains: Sequence[float], images_per_part: int = IMAGES_PER_PART
) -> SweepReport:
    """Dose-response of a correction on one split, here and now. Raises what its parts raise."""
    planned = plan_sweep(run, question, gains, images_per_part)
    return assemble_sweep(run, question, planned, [run_part(run, p) for p in planned.parts])
