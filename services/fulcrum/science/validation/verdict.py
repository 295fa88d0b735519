"""From gates to one of five verdicts.

Benefit (efficacy, controls) and harm (harm overall, clean loss, protected groups, worst group, ripple,
calibration) are each combined to pass, fail or undecided (`gates.combine`):

    | benefit   | harm: pass    | harm: undecided | harm: fail             |
    |-----------|---------------|-----------------|------------------------|
    | pass      | generalises   | inconclusive    | generalises with harm* |
    | undecided | inconclusive  | inconclusive    | harmful                |
    | fail      | instance-only | instance-only   | harmful                |

    * harmful when more is broken than fixed: the interval of the net gain over all images lies below 0.

Read by rows: nothing generalises while harm is open; harm that is proven stands also while the benefit is
open; a benefit that failed is not rescued by missing harm. Before the table, in this order:

1. a precondition that is not met (the identity correction flips, nothing rises above the noise floor) makes
   every verdict **inconclusive**: the measurement itself is in doubt, so harm is not proven either;
2. outside the confirm split `generalises` and `generalises with harm` become **inconclusive**: a correction
   found or chosen on these images cannot be proven by them (SCIENCE.md 8, trap 14). What the table said is
   kept in `provisional`. Verdicts against the correction stand on every split: selection can only have hidden
   harm.

A second look at confirm does not change the verdict; it stands on the badge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.gates import Gate, State, combine

VerdictName = Literal["instance-only", "generalises", "generalises with harm", "harmful", "inconclusive"]
Split = Literal["discover", "select", "confirm"]
SPLITS: tuple[Split, ...] = ("discover", "select", "confirm")

TRUTH_TABLE: dict[tuple[State, State], VerdictName] = {
    ("pass", "pass"): "generalises",
    ("pass", "undecided"): "inconclusive",
    ("pass", "fail"): "generalises with harm",
    ("undecided", "pass"): "inconclusive",
    ("undecided", "undecided"): "inconclusive",
    ("undecided", "fail"): "harmful",
    ("fail", "pass"): "instance-only",
    ("fail", "undecided"): "instance-only",
    ("fail", "fail"): "harmful",
}


@dataclass(frozen=True)
class Verdict:
    """The verdict, what it stands on, and how it is shown.

    `provisional` is what the gates alone say; `needs_n` the images (of all kinds, in the present mixture)
    with which the undecided gates would decide, None when nothing is undecided or more images do not help.
    """

    name: VerdictName
    provisional: VerdictName
    badge: str
    benefit: State
    harm: State
    preconditions: State
    split: Split
    confirm_look: int  # 0 outside the confirm split
    needs_n: int | None
    reasons: tuple[str, ...]


def decide(gates: Sequence[Gate], n: int, net_high: float, split: Split, confirm_look: int = 0) -> Verdict:
    """Applies the table.

    `n` images were evaluated, `net_high` is the upper end of the interval of their net gain. Raises
    InvalidSettings for an unknown split, or a look that does not fit the split.
    """
    if split not in SPLITS:
        raise InvalidSettings(f"split {split!r} must be one of {list(SPLITS)}")
    if (split == "confirm") != (confirm_look >= 1):
        raise InvalidSettings(
            f"confirm_look={confirm_look} on split {split!r}: looks at confirm count from 1, others are 0"
        )
    if not any(g.kind == "benefit" for g in gates) or not any(g.kind == "harm" for g in gates):
        raise InvalidSettings("a verdict needs at least one benefit gate and one harm gate")
    benefit, harm = combine(gates, "benefit"), combine(gates, "harm")
    preconditions = combine(gates, "precondition")
    provisional = TRUTH_TABLE[(benefit, harm)]
    if provisional == "generalises with harm" and net_high < 0:
        provisional = "harmful"

    reasons = [f"{g.name}: {g.reason}" for state in ("fail", "undecided") for g in gates if g.state == state]
    name = provisional
    if preconditions != "pass":
        name = "inconclusive"
    elif split != "confirm" and provisional in ("generalises", "generalises with harm"):
        name = "inconclusive"
        reasons.append(f"seen on the {split} split only: what was found there is proven on confirm")
    needs_n = _needed(gates, n) if name == "inconclusive" and preconditions == "pass" else None

    badge = f"inconclusive (needs n >= {needs_n})" if needs_n is not None else str(name)
    if name == "inconclusive" and name != provisional:
        badge = (
            "inconclusive (precondition)"
            if preconditions != "pass"
            else f"inconclusive ({split} split: {provisional})"
        )
    if confirm_look > 1:
        badge += f" · look {confirm_look} at confirm"
    return Verdict(
        name=name,
        provisional=provisional,
        badge=badge,
        benefit=benefit,
        harm=harm,
        preconditions=preconditions,
        split=split,
        confirm_look=confirm_look,
        needs_n=needs_n,
        reasons=tuple(reasons),
    )


def _needed(gates: Sequence[Gate], n: int) -> int | None:
    undecided = [g for g in gates if g.state == "undecided" and g.kind != "precondition"]
    # A gate that more images cannot open (too few controls, a rate right on its margin) leaves no promise to
    # make.
    if not undecided or any(g.needs_n is None for g in undecided):
        return None
    return max(math.ceil(n * (g.needs_n or 0) / max(g.n, 1)) for g in undecided)
