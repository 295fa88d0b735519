"""Whether the same concepts have the same experts in two searches."""

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.expert_table import ExpertTable
from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.experts import ConceptOverlap, ExpertRule, ExpertStability


def stability_of(here: ExpertTable, there: ExpertTable, rule: ExpertRule) -> ExpertStability:
    """Concepts are matched by name. Units are compared where both searches have the same layers, similarities always.

    Raises InvalidInput where no two concepts have the same names, or for a rule that chooses no units, and what
    `chosen` and `similarity` raise.
    """
    names = [c.name for c in here.about.concepts]
    others = {c.name: row for row, c in enumerate(there.about.concepts)}
    pairs = [(row, others[name]) for row, name in enumerate(names) if name in others]
    if len(pairs) < 2:
        raise InvalidInput(f"the two searches have {len(pairs)} concepts in common: at least two are needed")
    shared = [names[row] for row, _ in pairs]
    rho = None
    if len(pairs) >= 3:
        upper = np.triu_indices(len(pairs), k=1)
        mine, theirs = (
            table.similarity(rule)[np.ix_(rows, rows)][upper]
            for table, rows in ((here, [a for a, _ in pairs]), (there, [b for _, b in pairs]))
        )
        if np.ptp(mine) > 0 and np.ptp(theirs) > 0:
            rho = float(np.corrcoef(midranks(mine), midranks(theirs))[0, 1])
    if here.about.layers != there.about.layers or rule.rule not in ("top_k", "tau"):
        return ExpertStability(rule, len(pairs), (), None, None, rho)
    mine_chosen = np.stack([here.chosen(rule, a) for a, _ in pairs]).astype(np.float64)
    their_chosen = np.stack([there.chosen(rule, b) for _, b in pairs]).astype(np.float64)
    both = mine_chosen @ their_chosen.T
    either = mine_chosen.sum(axis=1)[:, None] + their_chosen.sum(axis=1)[None] - both
    overlap = both / np.maximum(either, 1)
    different = ~np.eye(len(pairs), dtype=bool)
    return ExpertStability(
        rule,
        len(pairs),
        tuple(ConceptOverlap(n, float(v)) for n, v in zip(shared, np.diag(overlap), strict=True)),
        float(np.diag(overlap).mean()),
        float(overlap[different].mean()),
        rho,
    )


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks
