"""`validate`: arrays and a frozen specification in, every number and the verdict out."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidDataset, InvalidInput
from fulcrum.science.validation import judge
from fulcrum.science.validation.arrays import UNLABELLED, check_classes, check_labels, check_logits
from fulcrum.science.validation.bootstrap import (
    PairedBootstrap,
    Statistic,
    mean_of,
    on_the_sample,
    percentile_interval,
    quantile_of,
)
from fulcrum.science.validation.calibration import Calibration, CalibrationScore, ece_of
from fulcrum.science.validation.comparison import PairedComparison, compare
from fulcrum.science.validation.confusion import ChangedPair, changed_pairs
from fulcrum.science.validation.controls import (
    ControlResult,
    against_controls,
    check_controls,
    control_gate,
    gains_of_predictions,
)
from fulcrum.science.validation.efficacy import Efficacy, measure_efficacy
from fulcrum.science.validation.flips import BROKEN, FIXED, MOVED
from fulcrum.science.validation.gates import Gate
from fulcrum.science.validation.groups import (
    CLASS_COLUMN,
    GroupRow,
    Members,
    WorstGroup,
    group_table,
    members_of,
    worst_group,
    worst_statistic,
)
from fulcrum.science.validation.image_sets import JudgedSet, invariant_gate, judged_set, set_members
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.looks import Look, Looks, Selection
from fulcrum.science.validation.noise_floor import NoiseFloor, identity_gate, noise_floor, noise_gate
from fulcrum.science.validation.per_image import PerImage, group_columns, per_image, rows
from fulcrum.science.validation.power import images_for_clean_bound, minimum_detectable_effect
from fulcrum.science.validation.ripple import Move, Ripple, class_moves, concept_moves, spread
from fulcrum.science.validation.slices import FoundSlice, find_slices, slice_table
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.science.validation.verdict import Split, Verdict, decide

MOST_FOUND_SLICES = 20


@dataclass(frozen=True)
class Plan:
    """What a data set of this size can show, known before the run.

    Effects are shares; None where no effect can be shown.
    """

    n: int
    mde: float | None
    n_target: int
    mde_target: float | None
    discordant_share: float
    images_for_harm: int  # with none broken, the fewest images that bound the NFR by the margin
    can_pass_harm: bool


@dataclass(frozen=True)
class Counted:
    """How many images went where."""

    given: int
    other_splits: int
    found_on: int
    leaked: int
    evaluated: int
    labelled: int
    unlabelled: int
    unlabelled_changed: int
    below_floor: int


@dataclass(frozen=True)
class ValidationReport:
    """Every number of one validation. Shares, not points.

    `gates_left_out` names each gate not asked, with its reason. `overall` are all evaluated labelled images,
    `target` those of the failure mode, `unaffected` the others.
    """

    verdict: Verdict
    gates: tuple[Gate, ...]
    gates_left_out: tuple[str, ...]
    split: Split
    specification: Specification
    specification_sha256: str
    plan: Plan
    counted: Counted
    overall: PairedComparison
    target: PairedComparison | None
    unaffected: PairedComparison | None
    efficacy: Efficacy
    controls: tuple[ControlResult, ...]
    classes: tuple[GroupRow, ...]
    groups: tuple[GroupRow, ...]
    worst_group: WorstGroup | None
    slices: tuple[GroupRow, ...]
    slices_with_broken: tuple[FoundSlice, ...]
    slices_with_fixed: tuple[FoundSlice, ...]
    slices_with_moved: tuple[FoundSlice, ...]
    image_sets: tuple[JudgedSet, ...]
    changed_pairs: tuple[ChangedPair, ...]
    ripple: Ripple | None
    calibration: Calibration
    noise_floor: NoiseFloor | None
    confirm_look: int
    selection: Selection | None
    subject: Subject | None
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values ready for JSON, under the field names; groups also carry their `name`."""
        content: dict[str, Any] = plain(self)
        return content


def plan(n: int, n_target: int, spec: Specification) -> Plan:
    """What `n` images, `n_target` of them of the failure mode, can show.

    To be printed before anything is run.
    """
    needed = images_for_clean_bound(spec.harm_margin, spec.alpha)

    def mde(size: int) -> float | None:
        if size < 1:
            return None
        return minimum_detectable_effect(size, spec.discordant_share, spec.alpha, spec.power)

    return Plan(n, mde(n), n_target, mde(n_target), spec.discordant_share, needed, n >= needed)


def validate(given: ValidationInput, spec: Specification) -> ValidationReport:
    """Judges a correction on one split.

    Seconds of work for 50 000 images of 100 classes, most of it bootstrap. Raises DatasetWithoutLabels (use
    `per_image` and `flips.flip_table` for *changed* alone), SingleClassDataset, InvalidDataset when no image
    is left to judge, ComputationFailed for nan, and InvalidInput for arrays that do not fit.
    """
    base_logits = check_logits("base_logits", given.base_logits)
    check_labels(given.labels, *base_logits.shape)
    table = per_image(given, spec)
    seen_part = table["evaluated"]
    if not seen_part.any():
        raise InvalidDataset(
            f"no unseen image in split {given.split!r}: splits are {sorted(set(table['split'].tolist()))}, "
            f"{int(table['found_on'].sum())} images were seen, "
            f"{int(table['leaked'].sum())} are their near-duplicates"
        )
    check_labels(table["label"][seen_part], int(seen_part.sum()), base_logits.shape[1])
    return _Run(given, spec, table).report()


def look_of(report: ValidationReport) -> Look:
    """What is counted of an evaluation: its p on the failure mode, on all images where none was named."""
    assert report.subject is not None  # whoever counts looks says of what
    p = report.overall.p if report.target is None else report.target.p
    return Look(report.subject.correction_sha256, report.subject.dataset_digest, report.split, p)


def with_look(report: ValidationReport, before: Looks, look: Look) -> ValidationReport:
    """The report once its look is counted after those `before`: the seal of confirm, the adjustment on select."""
    key = (look.correction_sha256, look.dataset_digest)
    confirm_look = before.confirm_look(*key) if look.split == "confirm" else 0
    counted = before.record(look) if look.split == "select" else before
    verdict = decide(report.gates, report.overall.n, report.overall.interval.high, report.split, confirm_look)
    return dataclasses.replace(
        report,
        verdict=verdict,
        confirm_look=confirm_look,
        selection=counted.selection(*key, report.specification.false_discovery),
    )


def plain(value: Any) -> Any:
    """Frozen values as dicts, lists, numbers and texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        content = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if hasattr(value, "name") and "name" not in content:
            content["name"] = value.name
        return content
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value


class _Run:
    """One validation in progress: the evaluated rows (`ev`), of them the labelled ones (`lab`)."""

    def __init__(self, given: ValidationInput, spec: Specification, table: PerImage) -> None:
        self.given, self.spec, self.table = given, spec, table
        self.ev = rows(table, table["evaluated"])
        self.known = self.ev["label"] != UNLABELLED
        self.lab = rows(self.ev, self.known)
        repeated = len(np.unique(self.ev["cluster"])) < len(self.ev["cluster"])
        self.clusters: NDArray[Any] | None = self.ev["cluster"] if repeated else None
        self.lab_clusters: NDArray[Any] | None = self.lab["cluster"] if repeated else None
        self.level = 1 - spec.alpha
        self.has_target = given.target is not None
        self.gates: list[Gate] = []
        self.left_out: list[str] = []

    def report(self) -> ValidationReport:
        spec, given, lab = self.spec, self.given, self.lab
        overall = compare(lab["outcome"], self.lab_clusters, spec)
        target = self._compare(lab["target"])
        unaffected = self._compare(~lab["target"]) if self.has_target else None
        floor = self._preconditions()
        self.gates.append(judge.efficacy_gate(target, spec))
        controls = self._controls(target)
        self.gates.append(judge.harm_gate(overall, spec))
        self._clean_and_protected()
        sets = tuple(judged_set(s, self.table, given.split) for s in given.image_sets)
        self.gates += [invariant_gate(s) for s in sets if s.purpose == "invariant"]
        groups = members_of(group_columns(lab))
        classes = members_of({CLASS_COLUMN: np.array(given.class_names, dtype=np.str_)[lab["label"]]})
        group_rows = group_table(groups, lab["outcome"], self.lab_clusters, spec)
        class_rows = group_table(classes, lab["outcome"], self.lab_clusters, spec)
        self._worst_group_gate(groups, classes)
        worst, ripple, calibration = self._bootstrapped(groups, group_rows)
        confirm_look, selection = self._looks()
        verdict = decide(self.gates, overall.n, overall.interval.high, given.split, confirm_look)
        return ValidationReport(
            verdict=verdict,
            gates=tuple(self.gates),
            gates_left_out=tuple(self.left_out),
            split=given.split,
            specification=spec,
            specification_sha256=spec.sha256,
            plan=plan(len(lab["label"]), int(lab["target"].sum()), spec),
            counted=self._counted(),
            overall=overall,
            target=target if self.has_target else None,
            unaffected=unaffected,
            efficacy=self._efficacy(),
            controls=controls,
            classes=class_rows,
            groups=group_rows,
            worst_group=worst,
            slices=slice_table(
                group_columns(lab),
                lab["outcome"],
                self.lab_clusters,
                spec,
                extra=set_members(given.image_sets, lab),
            ),
            slices_with_broken=self._found_slices(BROKEN),
            slices_with_fixed=self._found_slices(FIXED),
            slices_with_moved=self._found_slices(MOVED),
            image_sets=sets,
            changed_pairs=changed_pairs(
                self.ev["label"],
                self.ev["base_prediction"],
                self.ev["corrected_prediction"],
                given.class_names,
            ),
            ripple=ripple,
            calibration=calibration,
            noise_floor=floor,
            confirm_look=confirm_look,
            selection=selection,
            subject=given.subject,
            provenance=dict(given.provenance),
        )

    def _compare(self, mask: NDArray[np.bool_]) -> PairedComparison | None:
        if not mask.any():
            return None
        clusters = None if self.lab_clusters is None else self.lab_clusters[mask]
        return compare(self.lab["outcome"][mask], clusters, self.spec)

    def _preconditions(self) -> NoiseFloor | None:
        base = check_logits("base_logits", self.given.base_logits)
        floor = None
        if self.given.identity_logits is not None:
            identity = check_logits("identity_logits", self.given.identity_logits)
            self.gates.append(identity_gate(base, identity))
        else:
            self.left_out.append("identity: no run of the identity correction was given")
        if self.given.repeat_logits is not None:
            repeat = check_logits("repeat_logits", self.given.repeat_logits)
            floor = noise_floor(base, repeat)
            judged = self.table["evaluated"]
            changed = int((self.ev["base_prediction"] != self.ev["corrected_prediction"]).sum())
            self.gates.append(noise_gate(noise_floor(base[judged], repeat[judged]), changed))
        else:
            self.left_out.append("noise_floor: the base model was not run again")
        return floor

    def _controls(self, target: PairedComparison | None) -> tuple[ControlResult, ...]:
        gains = check_controls(self.given.control_gains)
        judged = self.table["evaluated"] & self.table["target"] & (self.table["label"] != UNLABELLED)
        n, n_classes = np.shape(self.given.base_logits)
        for kind, values in self.given.control_predictions.items():
            predicted = np.asarray(values)
            if predicted.ndim != 2 or predicted.shape[1] != n:
                raise InvalidInput(
                    f"control predictions of kind {kind!r} have shape {predicted.shape}: (n_controls, {n})"
                )
            if kind in gains:
                raise InvalidInput(f"controls of kind {kind!r} were given twice, as gains and as predictions")
            check_classes(f"control predictions of kind {kind!r}", predicted.ravel(), n_classes)
            if judged.any():
                gains[kind] = gains_of_predictions(
                    self.table["label"][judged], self.table["base_prediction"][judged], predicted[:, judged]
                )
        results = tuple(
            against_controls(kind, target.net, values, self.spec.control_percentile)
            for kind, values in gains.items()
            if target is not None and len(values)
        )
        if self.spec.min_controls:
            self.gates.append(control_gate(results, self.spec.min_controls))
        else:
            self.left_out.append("controls: min_controls is 0")
        return results

    def _clean_and_protected(self) -> None:
        spec, lab = self.spec, self.lab
        if spec.clean_loss_margin is None:
            self.left_out.append("clean_loss: clean_loss_margin is None")
        elif not self.has_target:
            self.left_out.append("clean_loss: no failure mode was named, so no image is outside it")
        else:
            outcome, clusters = self._part(~lab["target"])
            self.gates.append(judge.clean_loss_gate(outcome, clusters, spec))
        columns = group_columns(lab)
        for group in spec.protected_groups:
            if group.column not in columns:
                raise InvalidInput(f"protected group column {group.column!r} is not among {sorted(columns)}")
            outcome, clusters = self._part(columns[group.column] == group.value)
            self.gates.append(judge.protected_gate(group, outcome, clusters, spec))

    def _worst_group_gate(self, groups: list[Members], classes: list[Members]) -> None:
        spec = self.spec
        if spec.worst_group_margin is None:
            self.left_out.append("worst_group: worst_group_margin is None")
            return
        chosen = groups
        if spec.worst_group_columns is not None:
            unknown = set(spec.worst_group_columns) - {CLASS_COLUMN, *group_columns(self.lab)}
            if unknown:
                raise InvalidInput(f"worst_group_columns name columns that are not there: {sorted(unknown)}")
            chosen = [m for m in groups + classes if m[0].columns[0] in spec.worst_group_columns]
        gate = judge.worst_group_gate(chosen, self.lab["outcome"], self.lab_clusters, spec)
        if gate is None:
            self.left_out.append(f"worst_group: no group of {spec.min_group_size} images or more")
        else:
            self.gates.append(gate)

    def _bootstrapped(
        self, groups: list[Members], group_rows: tuple[GroupRow, ...]
    ) -> tuple[WorstGroup | None, Ripple | None, Calibration]:
        spec, ev, n = self.spec, self.ev, len(self.ev["label"])
        still = ev["should_not_move"]
        n_known = int(self.known.sum())
        # The difference of means as a mean of differences: one column, paired by construction.
        scores = np.column_stack([ev[f"corrected_{s}"] - ev[f"base_{s}"] for s in ("brier", "log_loss")])
        statistics: dict[str, Statistic] = {"scores": mean_of(scores, self.known)}
        if still.any():
            statistics["kl"] = quantile_of(ev["kl"], 0.95, still)
        if n_known >= spec.ece_min_images:
            for name in ("base", "corrected"):
                right = ev[f"{name}_prediction"] == ev["label"]
                statistics[f"ece_{name}"] = ece_of(ev[f"{name}_confidence"], right, spec.ece_bins, self.known)
        if group_rows:
            at = np.flatnonzero(self.known)
            statistics["worst"] = worst_statistic([(g, at[x]) for g, x in groups], ev["outcome"])
        bootstrap = PairedBootstrap(n, self.clusters, spec.n_bootstrap, spec.seed)
        draws = dict(zip(statistics, bootstrap.draws(*statistics.values()), strict=True))
        point = {name: on_the_sample(statistic, n) for name, statistic in statistics.items()}

        worst = worst_group(group_rows, point["worst"], draws["worst"], self.level) if group_rows else None
        return worst, self._ripple(draws.get("kl")), self._calibration(point, draws, n_known)

    def _ripple(self, draws: NDArray[np.float64] | None) -> Ripple | None:
        spec, ev, given = self.spec, self.ev, self.given
        population = (
            "images without the failure mode" if self.has_target else "images that the base model has right"
        )
        if spec.kl_p95_limit is None:
            self.left_out.append("ripple: kl_p95_limit is None")
        if draws is None:
            if spec.kl_p95_limit is not None:
                self.gates.append(
                    Gate("ripple", "harm", "undecided", f"no {population}", margin=spec.kl_p95_limit)
                )
            return None
        still = ev["should_not_move"]
        kl = spread(ev["kl"][still])
        interval = percentile_interval(draws[:, 0], self.level)
        if spec.kl_p95_limit is not None:
            self.gates.append(judge.ripple_gate(kl.p95, interval, kl.n, population, spec))
        concepts: tuple[Move, ...] = ()
        if given.concept_bank:
            if given.base_embeddings is None or given.corrected_embeddings is None:
                raise InvalidInput("a concept bank needs base_embeddings and corrected_embeddings")
            chosen = np.flatnonzero(self.table["evaluated"] & self.table["should_not_move"])
            concepts = concept_moves(
                list(given.concept_bank),
                given.base_embeddings[chosen],
                given.corrected_embeddings[chosen],
                np.stack([np.asarray(v) for v in given.concept_bank.values()]),
                method=spec.false_discovery,
            )
        return Ripple(
            n=kl.n,
            population=population,
            temperature=spec.temperature,
            kl=kl,
            kl_p95_interval=interval,
            embedding_drift=spread(ev["embedding_drift"][still]) if "embedding_drift" in ev else None,
            classes=class_moves(
                ev["base_prediction"], ev["corrected_prediction"], given.class_names, spec.false_discovery
            ),
            latents=given.latents,
            concepts=concepts,
        )

    def _calibration(
        self, point: dict[str, NDArray[np.float64]], draws: dict[str, NDArray[np.float64]], n: int
    ) -> Calibration:
        spec, lab = self.spec, self.lab

        def score(name: str, place: int) -> CalibrationScore:
            before, after = float(lab[f"base_{name}"].mean()), float(lab[f"corrected_{name}"].mean())
            interval = percentile_interval(draws["scores"][:, place], self.level)
            return CalibrationScore(name, before, after, after - before, interval)

        ece = None
        if "ece_base" in draws:
            before, after = float(point["ece_base"][0]), float(point["ece_corrected"][0])
            difference = draws["ece_corrected"][:, 0] - draws["ece_base"][:, 0]
            ece = CalibrationScore(
                "ece", before, after, after - before, percentile_interval(difference, self.level)
            )
        if spec.ece_margin is None:
            self.left_out.append("calibration: ece_margin is None")
        else:
            self.gates.append(judge.calibration_gate(ece, n, spec))
        return Calibration(
            n, score("brier", 0), score("log_loss", 1), ece, spec.ece_bins, spec.ece_min_images
        )

    def _looks(self) -> tuple[int, Selection | None]:
        subject, confirm = self.given.subject, self.given.split == "confirm"
        if subject is None:
            return int(confirm), None
        key = (subject.correction_sha256, subject.dataset_digest)
        looks = self.given.looks
        return looks.confirm_look(*key) if confirm else 0, looks.selection(*key, self.spec.false_discovery)

    def _counted(self) -> Counted:
        table, ev = self.table, self.ev
        changed = ev["base_prediction"] != ev["corrected_prediction"]
        return Counted(
            given=len(table["id"]),
            other_splits=int((table["split"] != self.given.split).sum()),
            found_on=int(table["found_on"].sum()),
            leaked=int((table["leaked"] & (table["split"] == self.given.split)).sum()),
            evaluated=len(ev["id"]),
            labelled=int(self.known.sum()),
            unlabelled=int((~self.known).sum()),
            unlabelled_changed=int((changed & ~self.known).sum()),
            below_floor=int(ev["below_floor"].sum()),
        )

    def _efficacy(self) -> Efficacy:
        labelled = rows(self.table, self.table["label"] != UNLABELLED)
        return measure_efficacy(
            right_before=labelled["base_prediction"] == labelled["label"],
            right_after=labelled["corrected_prediction"] == labelled["label"],
            target=labelled["target"],
            found_on=labelled["found_on"],
            evaluated=labelled["evaluated"],
            condition_met=labelled["condition_met"],
            same_class_without_cue=labelled["same_class_without_cue"],
            same_cue_legitimate=labelled["same_cue_legitimate"],
            level=self.level,
        )

    def _found_slices(self, outcome: int) -> tuple[FoundSlice, ...]:
        spec = self.spec
        found = find_slices(
            group_columns(self.lab),
            self.lab["outcome"] == outcome,
            spec.min_group_size,
            method=spec.false_discovery,
        )
        return tuple(f for f in found if f.n_events > 0)[:MOST_FOUND_SLICES]

    def _part(self, mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        return self.lab["outcome"][mask], None if self.lab_clusters is None else self.lab_clusters[mask]
