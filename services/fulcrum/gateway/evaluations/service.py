"""Reading evaluations; they are written by jobs and never change."""

import json
import math
from statistics import NormalDist
from typing import Any

import numpy as np

import fulcrum
from fulcrum.domain.errors import (
    InvalidDataset,
    NotFound,
    UnknownCorrection,
    UnknownDataset,
    UnknownEvaluation,
)
from fulcrum.domain.evaluations import (
    ConfusionDelta,
    Evaluation,
    EvaluationPlan,
    FlipFilter,
    FlippedImage,
    Slices,
    SubjectChange,
)
from fulcrum.domain.records import EvaluationKind, EvaluationRecord, Page
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.evaluations import table
from fulcrum.gateway.evaluations.schemas import EvaluationPlanQuestion
from fulcrum.gateway.reach import reach
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.store.paging import from_cursor, to_cursor
from fulcrum.store.transaction import Transaction

_ALPHA, _POWER = 0.05, 0.8


def find(asker: Asker, tx: Transaction, evaluation_id: str) -> EvaluationRecord:
    """Raises UnknownEvaluation."""
    return reach(asker, tx, tx.evaluations, evaluation_id, "viewer", UnknownEvaluation, "evaluation")


def page(
    store: Store,
    asker: Asker,
    project_id: str | None,
    params: PageParams,
    *,
    kind: EvaluationKind | None,
    correction_id: str | None,
    dataset_id: str | None,
) -> Page[EvaluationRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.evaluations.list(
            project_id=project,
            limit=params.limit,
            cursor=params.cursor,
            kind=kind,
            correction_id=correction_id,
            dataset_id=dataset_id,
        )


def get(store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str) -> Evaluation:
    """Raises UnknownEvaluation."""
    with store.read() as tx:
        record = find(asker, tx, evaluation_id)
        changed = _changes(tx, record)
    return Evaluation(record, changed, _report(artifacts, record))


def images(
    store: Store,
    artifacts: Artifacts,
    asker: Asker,
    wanted: FlipFilter,
    params: PageParams,
) -> Page[FlippedImage]:
    """The flip board. Raises UnknownEvaluation, InvalidRequest for a column that is not there."""
    record, columns = _columns(store, artifacts, asker, wanted.evaluation_id)
    names = _class_names(_report(artifacts, record))
    rows = table.chosen(columns, wanted, names)
    start = 0 if params.cursor is None else max(0, from_cursor(params.cursor, "flipped image", int)[0])
    part = rows[start : start + params.limit]
    end = start + len(part)
    return Page(
        table.cards(columns, part, names),
        to_cursor("flipped image", end) if end < len(rows) else None,
    )


def flipped_ids(
    store: Store, artifacts: Artifacts, asker: Asker, wanted: FlipFilter
) -> tuple[EvaluationRecord, tuple[str, ...]]:
    """The evaluation, and the ids of all images of its flip board that are wanted. Raises as `images` does."""
    record, columns = _columns(store, artifacts, asker, wanted.evaluation_id)
    names = _class_names(_report(artifacts, record))
    rows = table.chosen(columns, wanted, names)
    return record, tuple(columns["id"][rows].tolist())


def parquet(store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str) -> bytes:
    """The table of images. Raises UnknownEvaluation, also for a sweep, which has none."""
    with store.read() as tx:
        record = find(asker, tx, evaluation_id)
    if record.parquet_sha256 is None:
        raise _no_table(record)
    return artifacts.read_bytes(record.parquet_sha256)


def as_csv(store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str) -> bytes:
    """The same as CSV."""
    return table.as_csv(_columns(store, artifacts, asker, evaluation_id)[1])


def confusion(store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str) -> ConfusionDelta:
    """Raises UnknownEvaluation, also for a sweep."""
    record, columns = _columns(store, artifacts, asker, evaluation_id)
    report = _report(artifacts, record)
    return table.confusion_delta(columns, _class_names(report), report["changed_pairs"])


def slices(store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str) -> Slices:
    """Raises UnknownEvaluation, also for a sweep."""
    with store.read() as tx:
        record = find(asker, tx, evaluation_id)
    if record.kind != "validation":
        raise _no_table(record)
    report = _report(artifacts, record)
    found = {name: tuple(report[f"slices_with_{name}"]) for name in ("broken", "fixed", "moved")}
    return Slices(slices=tuple(report["slices"]), **found)


def plan(store: Store, asker: Asker, correction_id: str, body: EvaluationPlanQuestion) -> EvaluationPlan:
    """What the split can show. Raises UnknownCorrection, UnknownDataset, InvalidDataset for a split it has not."""
    with store.read() as tx:
        reach(asker, tx, tx.corrections, correction_id, "viewer", UnknownCorrection, "correction")
        version = tx.corrections.get_version(correction_id, body.number)
        dataset = reach(asker, tx, tx.datasets, body.dataset_id, "viewer", UnknownDataset, "data set")
        looks = () if dataset.digest is None else tx.looks.at(dataset.project_id, dataset.digest)
    n = dataset.n_by_split.get(body.split, 0)
    if n == 0:
        raise InvalidDataset(
            f"data set {dataset.name!r} has no image in split {body.split!r}: it has {dataset.n_by_split}"
        )
    at_split = [k for k in looks if k.split == body.split]
    mine = sum(k.correction_sha256 == version.sha256 for k in at_split)
    # With none broken: 1 - alpha^(1/n) <= margin.
    needed = math.ceil(math.log(_ALPHA) / math.log1p(-body.harm_margin) - 1e-9)
    judged = n if body.split == "discover" else n + dataset.n_by_split.get("discover", 0)
    return EvaluationPlan(
        n=n,
        mde=minimum_detectable_effect(n, body.discordant_share),
        discordant_share=body.discordant_share,
        images_for_harm=needed,
        can_pass_harm=n >= needed,
        n_looks=len(at_split),
        next_look=0 if body.split == "discover" else mine + 1,
        most_forward_images=judged,
    )


def minimum_detectable_effect(n: int, psi: float) -> float | None:
    """As `science.validation.power` has it (80 % power, 5 %), with the standard library: the gateway has no scipy."""
    za, zb = (NormalDist().inv_cdf(q) for q in (1 - _ALPHA / 2, _POWER))
    inner = n * za**2 - (n + zb**2) * (za**2 - zb**2)
    if inner < 0:
        return None
    d = math.sqrt(psi) * (math.sqrt(n) * za + math.sqrt(inner)) / (n + zb**2)
    return d if d <= psi else None


def _columns(
    store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str
) -> tuple[EvaluationRecord, dict[str, np.ndarray[Any, Any]]]:
    with store.read() as tx:
        record = find(asker, tx, evaluation_id)
    if record.columns_sha256 is None:
        raise _no_table(record)
    return record, table.read_columns(artifacts, record.columns_sha256)


def _no_table(record: EvaluationRecord) -> UnknownEvaluation:
    return UnknownEvaluation(
        f"evaluation {record.id} is a {record.kind}: only a validation has a table of images"
    )


def _report(artifacts: Artifacts, record: EvaluationRecord) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(artifacts.read_bytes(record.report_sha256))
    return content


def _class_names(report: dict[str, Any]) -> list[str]:
    names: list[str] = report["provenance"]["class_names"]
    return names


def _changes(tx: Transaction, record: EvaluationRecord) -> tuple[SubjectChange, ...]:
    """What is not what it was. A thing that was deleted, or whose hash is not known any more, is a change too."""
    now: dict[str, str] = {"code_version": fulcrum.__version__}
    try:
        correction = tx.corrections.get(record.correction_id)
        now["correction_sha256"] = tx.corrections.get_version(correction.id).sha256
        if correction.sae_id is not None:
            sae = tx.saes.get(correction.sae_id)
            model = tx.models.get(sae.model_id)
            if sae.info is not None:
                now["sae_sha256"] = sae.info.weights_sha256
            if model.info is not None:
                now["model_sha256"] = model.info.weights_sha256
    except NotFound as error:
        now["correction_sha256"] = f"gone: {error}"
    try:
        now["dataset_digest"] = tx.datasets.get(record.dataset_id).digest or "empty"
    except UnknownDataset:
        now["dataset_digest"] = "deleted"
    found = [
        SubjectChange(part, getattr(record, part), value)
        for part, value in sorted(now.items())
        if getattr(record, part) != value
    ]
    return (*found, *_changed_sets(tx, record))


def _changed_sets(tx: Transaction, record: EvaluationRecord) -> tuple[SubjectChange, ...]:
    """Judged image sets that hold other images now, are for something else, or are gone; a name alone is no matter."""
    found = []
    for then in record.image_sets:
        now, part = tx.image_sets.find(then.id), f"image set {then.name}"
        if now is None:
            found.append(SubjectChange(part, then.sha256, "deleted"))
        elif now.sha256 != then.sha256:
            found.append(SubjectChange(part, then.sha256, now.sha256))
        elif now.purpose != then.purpose:
            found.append(SubjectChange(part, then.purpose, now.purpose))
    return tuple(found)
