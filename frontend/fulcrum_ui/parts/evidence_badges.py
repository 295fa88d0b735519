"""What is known about a correction, as badges: never a bare tick, always on what it stands."""

from collections.abc import Sequence

from fulcrum.domain.records import EvaluationRecord
from fulcrum_ui.parts.words import badge

STATE_KINDS = {"approved": "good", "rejected": "bad", "in_review": "info", "evaluated": "info"}
VERDICT_KINDS = {
    "generalises": "good",
    "generalises_with_harm": "bad",
    "harmful": "bad",
    "instance_only": "plain",
    "inconclusive": "plain",
}


def verdict_words(verdict: str | None) -> str:
    """As people read it."""
    return (verdict or "no verdict").replace("_", " ").replace("instance only", "instance-only")


def verdict_badge(evaluation: EvaluationRecord) -> str:
    """Its verdict."""
    key = (evaluation.verdict or "").lower().replace(" ", "_").replace("-", "_").replace(",", "")
    return badge(verdict_words(evaluation.verdict), VERDICT_KINDS.get(key, "plain"))


def evidence(evaluations: Sequence[EvaluationRecord]) -> str:
    """The strongest first: confirm before select before discover."""
    order = {"confirm": 0, "select": 1, "discover": 2}
    shown = sorted(evaluations, key=lambda e: (order.get(e.split, 3), e.created_at))[:2]
    return " ".join(
        f"{verdict_badge(e)} <span class='fu-quiet'>on {e.split}{f', look {e.look}' if e.look > 1 else ''}</span>"
        for e in shown
    )
