"""A correction at many gains: what each fixes and breaks, and where the matched controls lie beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from fulcrum.domain.errors import InvalidDataset, InvalidInput
from fulcrum.science.validation.arrays import UNLABELLED
from fulcrum.science.validation.comparison import paired_p
from fulcrum.science.validation.doses import Dose, DoseCurve, dose_curve, pareto_front
from fulcrum.science.validation.flips import BROKEN, FIXED
from fulcrum.science.validation.groups import members_of
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.intervals import rate_bound
from fulcrum.science.validation.per_image import PerImage, group_columns, per_image, rows
from fulcrum.science.validation.ripple import spread
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.verdict import Split


@dataclass(frozen=True)
class SweptGain:
    """One gain. `net` and `p` (exact McNemar) are of the judged images of the failure mode.

    `target_accuracy` is theirs under the edits, `other_accuracy` that of all other judged images; None where there are
    none.
    """

    gain: float
    correction_sha256: str
    dose: Dose
    fixed: int
    broken: int
    moved: int
    net: float
    p: float
    target_accuracy: float | None
    other_accuracy: float | None
    on_front: bool  # no other gain and no control fixes more at less cost


@dataclass(frozen=True)
class ControlPoint:
    """One matched control on a sample of the images: share of failures fixed, share of images broken."""

    fix_rate: float
    nfr: float
    on_front: bool


@dataclass(frozen=True)
class SweepReport:
    """Doses in the order of their gains. `curves` go from no edit outwards, one for each direction of gains."""

    split: Split
    n: int
    n_target: int
    n_target_wrong: int
    gains: tuple[SweptGain, ...]
    curves: tuple[DoseCurve, ...]
    controls: tuple[ControlPoint, ...]
    n_control_images: int
    specification: Specification
    specification_sha256: str
    provenance: Mapping[str, Any]


def swept(
    given: Mapping[float, ValidationInput],
    correction_sha256: Mapping[float, str],
    controls: Sequence[ControlPoint],
    n_control_images: int,
    spec: Specification,
    provenance: Mapping[str, Any],
) -> SweepReport:
    """Judges every gain on the unseen labelled images of the split.

    Raises InvalidDataset when none is left, InvalidInput for no gain.
    """
    if not given:
        raise InvalidInput("a sweep of no gains: at least one is needed")
    tables = {gain: _judged(per_image(one, spec)) for gain, one in sorted(given.items())}
    first = next(iter(tables.values()))
    if not len(first["label"]):
        raise InvalidDataset("no unseen labelled image is left to judge the gains on")
    doses = {gain: _dose(gain, table, spec) for gain, table in tables.items()}
    benefit = np.array([d.fix_rate for d in doses.values()] + [c.fix_rate for c in controls])
    cost = np.array([d.nfr for d in doses.values()] + [c.nfr for c in controls])
    front = pareto_front(benefit, cost)
    rows_of_gains = []
    for i, (gain, table) in enumerate(tables.items()):
        target = table["target"]
        outcome: Int[np.ndarray, " n"] = table["outcome"]
        on_target = outcome[target]
        right = table["corrected_prediction"] == table["label"]
        net = ((on_target == FIXED).mean() - (on_target == BROKEN).mean()) if target.any() else 0.0
        rows_of_gains.append(
            SweptGain(
                gain=gain,
                correction_sha256=correction_sha256[gain],
                dose=doses[gain],
                fixed=int((outcome == FIXED).sum()),
                broken=int((outcome == BROKEN).sum()),
                moved=int((table["base_prediction"] != table["corrected_prediction"]).sum()),
                net=float(net),
                p=paired_p(on_target, table["cluster"][target])[0] if target.any() else 1.0,
                target_accuracy=_mean(right[target]),
                other_accuracy=_mean(right[~target]),
                on_front=bool(front[i]),
            )
        )
    sides = ([d for d in doses.values() if d.gain <= 1], [d for d in doses.values() if d.gain > 1])
    wrong = first["target"] & (first["base_prediction"] != first["label"])
    return SweepReport(
        split=next(iter(given.values())).split,
        n=len(first["label"]),
        n_target=int(first["target"].sum()),
        n_target_wrong=int(wrong.sum()),
        gains=tuple(rows_of_gains),
        curves=tuple(dose_curve(side, spec.harm_margin) for side in sides if side),
        controls=tuple(
            ControlPoint(c.fix_rate, c.nfr, bool(f))
            for c, f in zip(controls, front[len(doses) :], strict=True)
        ),
        n_control_images=n_control_images,
        specification=spec,
        specification_sha256=spec.sha256,
        provenance=dict(provenance),
    )


def control_points(
    labels: Int[np.ndarray, " n"],
    base: Int[np.ndarray, " n"],
    is_target: Any,
    predicted: Int[np.ndarray, "n_controls n"],
) -> tuple[ControlPoint, ...]:
    """Where each control lies: of the wrong images of the failure mode the share fixed, of all the share broken."""
    right = base == labels
    wrong = is_target & ~right
    now = predicted == labels
    fixed = now[:, wrong].mean(axis=1) if wrong.any() else np.zeros(len(predicted))
    broken = (right & ~now).mean(axis=1)
    return tuple(ControlPoint(float(f), float(b), False) for f, b in zip(fixed, broken, strict=True))


def _mean(right: Bool[np.ndarray, " n"]) -> float | None:
    return float(right.mean()) if len(right) else None


def _judged(table: PerImage) -> PerImage:
    return rows(table, table["evaluated"] & (table["label"] != UNLABELLED))


def _dose(gain: float, table: PerImage, spec: Specification) -> Dose:
    outcome = table["outcome"]
    wrong = table["target"] & (table["base_prediction"] != table["label"])
    after = table["corrected_prediction"] == table["label"]
    groups = [images for _, images in members_of(group_columns(table)) if len(images) >= spec.min_group_size]
    still = table["should_not_move"]
    bound = rate_bound(outcome == BROKEN, table["cluster"], spec.alpha)
    return Dose(
        gain=gain,
        fix_rate=float((outcome[wrong] == FIXED).mean()) if wrong.any() else 0.0,
        nfr=float((outcome == BROKEN).mean()),
        nfr_upper=bound.upper,
        worst_group_accuracy=min((float(after[g].mean()) for g in groups), default=None),
        kl_p95=spread(table["kl"][still]).p95 if still.any() else 0.0,
    )
