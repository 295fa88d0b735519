"""Two evaluations beside each other: what a recomputation changed."""

from typing import Any

import numpy as np

from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.evaluations import Difference, EvaluationComparison, SubjectChange
from fulcrum.domain.records import EvaluationRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.evaluations import service, table
from fulcrum.gateway.reach import together
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store

_SUBJECT = ("correction_sha256", "dataset_digest", "model_sha256", "sae_sha256", "code_version")


def compare(
    store: Store, artifacts: Artifacts, asker: Asker, evaluation_id: str, other_id: str
) -> EvaluationComparison:
    """Raises UnknownEvaluation, InvalidRequest for a sweep beside a validation."""
    with store.read() as tx:
        then, now = (service.find(asker, tx, id) for id in (evaluation_id, other_id))
    together(then, now)
    if then.kind != now.kind:
        raise InvalidRequest(
            f"{then.id} is a {then.kind} and {now.id} a {now.kind}: only like can be compared"
        )
    return EvaluationComparison(
        then_id=then.id,
        now_id=now.id,
        changes=(
            *(
                SubjectChange(part, getattr(then, part), getattr(now, part))
                for part in _SUBJECT
                if getattr(then, part) != getattr(now, part)
            ),
            *_sets(then, now),
        ),
        differences=_differences(then, now),
        **_images(artifacts, then, now),
    )


def _sets(then: EvaluationRecord, now: EvaluationRecord) -> tuple[SubjectChange, ...]:
    before, after = ({s.name: f"{s.purpose} {s.sha256}" for s in r.image_sets} for r in (then, now))
    return tuple(
        SubjectChange(f"image set {name}", before.get(name, "not judged"), after.get(name, "not judged"))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _differences(then: EvaluationRecord, now: EvaluationRecord) -> tuple[Difference, ...]:
    plain = ("verdict", "badge", "look", "split", "specification_sha256")
    before, after = ({name: getattr(r, name) for name in plain} for r in (then, now))
    for content, record in ((before, then), (after, now)):
        content |= {f"gates.{name}": state for name, state in record.gates.items()}
        content |= record.numbers
    return tuple(
        Difference(name, before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )


def _images(artifacts: Artifacts, then: EvaluationRecord, now: EvaluationRecord) -> dict[str, Any]:
    if then.columns_sha256 is None or now.columns_sha256 is None:
        return {}
    one, other = (
        table.read_columns(artifacts, sha256) for sha256 in (then.columns_sha256, now.columns_sha256)
    )
    ids, rows, others = np.intersect1d(one["id"], other["id"], return_indices=True)
    margins = np.abs(one["corrected_margin"][rows] - other["corrected_margin"][others])
    return {
        "n_images": len(ids),
        "n_base_differs": int((one["base_prediction"][rows] != other["base_prediction"][others]).sum()),
        "n_corrected_differs": int(
            (one["corrected_prediction"][rows] != other["corrected_prediction"][others]).sum()
        ),
        "n_only_then": len(one["id"]) - len(ids),
        "n_only_now": len(other["id"]) - len(ids),
        "max_margin_difference": float(margins.max(initial=0.0)),
    }
