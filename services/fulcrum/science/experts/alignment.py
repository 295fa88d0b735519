"""Whether concepts lie inside a model as they do for people: rank correlation, its uncertainty, and the ceilings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.science.experts.structure import check_similarity

CeilingName = Literal["leave_one_out", "pairwise", "split_half_spearman_brown"]


@dataclass(frozen=True)
class Alignment:
    """Spearman's rho over pairs of concepts. The interval is over concepts, drawn with all their pairs.

    `p_value` is Mantel's: how often a renaming of the concepts does as well (one-sided).
    """

    rho: float
    ci_low: float
    ci_high: float
    p_value: float
    n_pairs: int


def align(
    similarity: Float[np.ndarray, "n_concepts n_concepts"],
    human: Float[np.ndarray, "n_rated n_rated"],
    n_resamples: int = 1000,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Alignment:
    """Model against people over the pairs that people rated; nan in `human` is a pair without a rating.

    Raises InvalidInput where fewer than three pairs were rated or one side is constant.
    """
    model = check_similarity(similarity)
    n = len(model)
    if human.shape != model.shape:
        raise InvalidInput(f"human similarity is {human.shape}, the model's {model.shape}")
    if n_resamples < 1 or n_permutations < 1:
        raise InvalidSettings("n_resamples and n_permutations must be at least 1")
    i, j = np.triu_indices(n, k=1)
    rated = np.isfinite(human[i, j])
    i, j = i[rated], j[rated]
    people = human[i, j]
    rho = spearman(model[i, j], people)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_resamples):
        # A concept that is drawn twice makes its pairs count twice; a pair of it with itself does not exist.
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        repeats = times[i] * times[j]
        a, b = np.repeat(model[i, j], repeats), np.repeat(people, repeats)
        if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0:
            drawn.append(spearman(a, b))
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (-1.0, 1.0)
    as_good = 0
    for _ in range(n_permutations):
        renamed = rng.permutation(n)
        as_good += _rho_or_zero(model[renamed[i], renamed[j]], people) >= rho
    return Alignment(rho, float(low), float(high), (as_good + 1) / (n_permutations + 1), len(i))


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation with midranks. Raises InvalidInput for fewer than three values or a constant side."""
    if len(a) < 3:
        raise InvalidInput(f"a rank correlation needs at least three pairs, got {len(a)}")
    for name, values in (("the model's similarities", a), ("the human ratings", b)):
        if np.ptp(values) == 0:
            raise InvalidInput(f"{name} are all {values[0]:g}: there is no order to compare")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def ceilings(
    ratings: Float[np.ndarray, "n_pairs n_raters"], n_splits: int = 200, seed: int = 0
) -> dict[CeilingName, float]:
    """How well people predict people, by name: the three differ by 0.2 to 0.4, so none is "the" ceiling.

    `leave_one_out`: each rater against the mean of the others. `pairwise`: mean over pairs of raters.
    `split_half_spearman_brown`: mean over random halves, corrected to the full number of raters.
    Raises InvalidInput for fewer than two raters, or for a rater who says the same of all pairs.
    """
    n_raters = ratings.shape[1]
    if n_raters < 2:
        raise InvalidInput(f"a ceiling needs at least two raters, got {n_raters}")
    if not np.isfinite(ratings).all():
        raise InvalidInput("a ceiling needs a rating of every pair by every rater")
    constant = np.flatnonzero(np.ptp(ratings, axis=0) == 0)
    if len(constant):
        raise InvalidInput(f"rater {constant[0] + 1} gave every pair the same rating")
    total = ratings.sum(axis=1)
    alone = [spearman(ratings[:, r], (total - ratings[:, r]) / (n_raters - 1)) for r in range(n_raters)]
    pairs = [spearman(ratings[:, a], ratings[:, b]) for a in range(n_raters) for b in range(a)]
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(n_splits):
        order = rng.permutation(n_raters)
        half = n_raters // 2
        r = _rho_or_zero(ratings[:, order[:half]].mean(axis=1), ratings[:, order[half:]].mean(axis=1))
        halves.append(2 * r / (1 + r) if r > -1 else -1.0)
    return {
        "leave_one_out": float(np.mean(alone)),
        "pairwise": float(np.mean(pairs)),
        "split_half_spearman_brown": float(np.mean(halves)),
    }


def triplet_accuracy(
    similarity: Float[np.ndarray, "n_concepts n_concepts"], triplets: Int[np.ndarray, "n_triplets 3"]
) -> float:
    """Share of triplets (a, b, odd one out) in which the model's closest pair is (a, b); chance is 1/3.

    A tie for the closest pair counts in parts. Raises InvalidInput for no triplets or concepts out of range.
    """
    values = check_similarity(similarity)
    if not len(triplets) or triplets.min() < 0 or triplets.max() >= len(values):
        raise InvalidInput(f"triplets must be numbers of the {len(values)} concepts, at least one row")
    a, b, odd = triplets.T
    if (a == b).any() or (a == odd).any() or (b == odd).any():
        raise InvalidInput("a triplet must have three different concepts")
    pairs = np.stack([values[a, b], values[a, odd], values[b, odd]])
    closest = pairs == pairs.max(axis=0)
    return float((closest[0] / closest.sum(axis=0)).mean())


def align_all(
    experts: Float[np.ndarray, "n_concepts n_concepts"],
    random_weights: Float[np.ndarray, "n_concepts n_concepts"],
    baselines: Mapping[str, Float[np.ndarray, "n_concepts n_concepts"]],
    human: Float[np.ndarray, "n_concepts n_concepts"],
    seed: int = 0,
) -> dict[str, Alignment]:
    """The alignment of the experts, never without that of random weights and of the baselines beside it.

    The *number* of experts says nothing about learning (random weights have as many), only their overlaps do; and a
    mean embedding may do better than experts. Raises InvalidInput where `baselines` is empty.
    """
    if not baselines:
        raise InvalidInput("an alignment is shown beside baselines from the same examples: none were given")
    named = {"experts": experts, "random_weights": random_weights, **baselines}
    return {name: align(similarity, human, seed=seed) for name, similarity in named.items()}


def _rho_or_zero(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """0 where a side is constant: a permutation of few pairs, or a half of raters, can be."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else spearman(a, b)
