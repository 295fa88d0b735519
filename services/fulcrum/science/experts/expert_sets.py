"""Which units are experts, and how alike two concepts are inside the model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.domain.experts import Expertise, require_one_base_rate


def experts_above(concepts: Sequence[Expertise], tau: float) -> Bool[np.ndarray, "n_concepts n_units"]:
    """`E_tau(c) = {u : ap[u] > tau}`. Raises InvalidInput where the concepts have several base rates."""
    if not 0 <= tau < 1:
        raise InvalidSettings(f"tau={tau} must lie in 0 .. 1")
    require_one_base_rate(list(concepts))
    return _ap(concepts) > tau


def best_experts(concepts: Sequence[Expertise], k: int) -> Bool[np.ndarray, "n_concepts n_units"]:
    """The k units of highest AP for each concept, whatever its base rate; equal ones by number."""
    ap = _ap(concepts)
    if not 1 <= k <= ap.shape[1]:
        raise InvalidSettings(f"k={k} must lie in 1 .. {ap.shape[1]}, the number of units")
    chosen = np.zeros(ap.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-ap, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def jaccard(
    experts: Bool[np.ndarray, "n_concepts n_units"],
    others: Bool[np.ndarray, "n_others n_units"] | None = None,
) -> Float[np.ndarray, "n_concepts n_others"]:
    """Shared experts over all experts of each pair of concepts; 0 where neither has any."""
    a = experts.astype(np.float64)
    b = a if others is None else others.astype(np.float64)
    both = a @ b.T
    either = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - both
    similarity: Float[np.ndarray, "n_concepts n_others"] = both / np.maximum(either, 1)
    return similarity


def centred_cosine(concepts: Sequence[Expertise]) -> Float[np.ndarray, "n_concepts n_concepts"]:
    """Cosine of AP vectors from which the mean over concepts is taken: no threshold, and no common part.

    Raises InvalidInput across base rates, or for fewer than two concepts.
    """
    require_one_base_rate(list(concepts))
    return cosine_of_rows(_ap(concepts))


def cosine_of_rows(
    rows: Float[np.ndarray, "n_concepts n_columns"],
) -> Float[np.ndarray, "n_concepts n_concepts"]:
    """Cosine of rows after the mean row is taken away: also how the baselines are compared.

    0 for a row that equals the mean. Raises InvalidInput for fewer than two rows.
    """
    if len(rows) < 2:
        raise InvalidInput(f"similarity needs at least two concepts, got {len(rows)}")
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    similarity: Float[np.ndarray, "n_concepts n_concepts"] = unit @ unit.T
    return similarity


def stability(
    experts: Bool[np.ndarray, "n_concepts n_units"], again: Bool[np.ndarray, "n_again n_units_again"]
) -> tuple[Float[np.ndarray, " n_concepts"], float]:
    """How far the same concepts have the same experts elsewhere, and the same number for different concepts.

    Elsewhere is another set of examples or a checkpoint of the same architecture: units must correspond. For models
    with other units compare their similarities (`alignment.align`). Raises InvalidInput for other shapes.
    """
    if experts.shape != again.shape or len(experts) < 2:
        raise InvalidInput(
            f"stability compares the same units of the same concepts, two at least: {experts.shape} and {again.shape}"
        )
    overlap = jaccard(experts, again)
    different = ~np.eye(len(overlap), dtype=bool)
    return np.diag(overlap).copy(), float(overlap[different].mean())


def _ap(concepts: Sequence[Expertise]) -> Float[np.ndarray, "n_concepts n_units"]:
    if not concepts:
        raise InvalidInput("there is no concept")
    sizes = sorted({c.n_units for c in concepts})
    if len(sizes) > 1:
        raise InvalidInput(f"the concepts have {sizes} units: they must come from one model")
    return np.stack([c.ap for c in concepts])
