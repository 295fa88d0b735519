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


_MEANINGS = {
    "generalises": "It mends images of the failure mode that nobody looked at, by more than controls of the same size do, and breaks no more than is allowed.",
    "generalises with harm": "It mends unseen images of the failure mode, and breaks more than is allowed: look at the gates that failed.",
    "instance-only": "No gain on the failure mode as a whole, or none that controls of the same size do not reach: it may mend single images only.",
    "harmful": "It breaks more than is allowed, and no gain makes up for it.",
    "inconclusive": "These images cannot decide it: a gate is open, or the split is not the one that proves.",
}


def verdict_words(verdict: str | None) -> str:
    """As people read it."""
    return (verdict or "no verdict").replace("_", " ").replace("instance only", "instance-only")


def verdict_meaning(verdict: str) -> str | None:
    """What a verdict says, in one sentence for whoever meets the word for the first time."""
    return _MEANINGS.get(verdict)


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
