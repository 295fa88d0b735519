"""All the ways in which concepts are compared, each for the units as they are and with random weights."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float

from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.experts import Expertise, ExpertRule
from fulcrum.science.experts.expert_sets import (
    best_experts,
    centred_cosine,
    cosine_of_rows,
    experts_above,
    jaccard,
)

_KS: Final = (10, 20, 50, 100, 200, 500, 1000, 2000)
_TAUS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def rules_for(n_units: int, one_base_rate: bool) -> tuple[ExpertRule, ...]:
    """Top-k up to half of the units, AUROC's cosine, and where AP can be compared thresholds and AP's cosine."""
    ks = [k for k in _KS if 2 * k <= n_units] or [max(1, n_units // 2)]
    rules = [ExpertRule("top_k", float(k)) for k in ks] + [ExpertRule("cosine_auroc")]
    if one_base_rate:
        rules += [ExpertRule("tau", tau) for tau in _TAUS] + [ExpertRule("cosine_ap")]
    return tuple(rules)


def rule_to_show(n_units: int) -> ExpertRule:
    """The rule to begin with: the best 1 to 2 % of the units, 200 at most."""
    ks = [k for k in _KS[:5] if 50 * k <= n_units] or [k for k in _KS[:1] if 2 * k <= n_units]
    return ExpertRule("top_k", float(ks[-1] if ks else max(1, n_units // 2)))


def similarity_by(
    rule: ExpertRule, concepts: Sequence[Expertise]
) -> tuple[Float[np.ndarray, "n_concepts n_concepts"], float | None]:
    """Similarity of the concepts, and the mean number of experts where the rule chooses some.

    Raises InvalidInput for AP across base rates.
    """
    match rule.rule:
        case "cosine_ap":
            return centred_cosine(concepts), None
        case "cosine_auroc":
            # AUROC does not depend on the base rate, so this exists for concepts of any sizes.
            return cosine_of_rows(np.stack([c.auroc for c in concepts])), None
    if rule.value is None:
        raise InvalidInput(f"the rule {rule.rule!r} needs a value")
    by_threshold = rule.rule == "tau"
    chosen = experts_above(concepts, rule.value) if by_threshold else best_experts(concepts, int(rule.value))
    return jaccard(chosen), float(chosen.sum(axis=1).mean())
