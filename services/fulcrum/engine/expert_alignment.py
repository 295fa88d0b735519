"""Similarities of concepts beside what people say of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.concept_files import HumanJudgements, PairRatings, TripletChoices
from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.experts import Ceiling, ExpertRule, HumanAlignment, RankCorrelation, TripletAccuracy
from fulcrum.science.experts.alignment import align, ceilings, triplet_accuracy

_N_RESAMPLES = 200  # a 95 % interval from 200 is as wide as one from 1000 to a tenth


@dataclass(frozen=True, eq=False)
class Compared:
    """Similarities of the concepts by one rule or baseline."""

    of: str
    rule: ExpertRule | None
    similarity: NDArray[np.float64]


def alignment_of(
    judgements: HumanJudgements, concepts: Sequence[str], compared: Sequence[Compared], seed: int
) -> HumanAlignment:
    """Everything that was compared, random weights and baselines with it; a rule by which all concepts are equally
    alike says nothing about an order and is left out.

    Raises InvalidInput for ratings without an order, or raters who say the same of all pairs.
    """
    row = {name: i for i, name in enumerate(concepts)}
    if isinstance(judgements, TripletChoices):
        triplets = np.array([[row[w] for w in words] for words in judgements.triplets], dtype=np.int64)
        accuracies = tuple(
            TripletAccuracy(c.of, c.rule, triplet_accuracy(c.similarity, triplets), len(triplets))
            for c in compared
        )
        return HumanAlignment(judgements.name, "triplets", len(triplets), (), accuracies, ())
    human = _matrix(judgements, row)
    i, j = np.triu_indices(len(concepts), k=1)
    rated = np.isfinite(human[i, j])
    correlations = []
    for c in compared:
        if np.ptp(c.similarity[i, j][rated]) == 0:
            continue
        found = align(c.similarity, human, _N_RESAMPLES, _N_RESAMPLES, seed)
        correlations.append(
            RankCorrelation(
                c.of, c.rule, found.rho, found.ci_low, found.ci_high, found.p_value, found.n_pairs
            )
        )
    named: tuple[Ceiling, ...] = ()
    if judgements.raters and len(judgements.raters[0]) > 1:
        found_ceilings = ceilings(np.array(judgements.raters, dtype=np.float64), seed=seed)
        named = tuple(Ceiling(name, value) for name, value in found_ceilings.items())
    return HumanAlignment(judgements.name, "pairs", len(judgements.pairs), tuple(correlations), (), named)


def _matrix(judgements: PairRatings, row: dict[str, int]) -> NDArray[np.float64]:
    human = np.full((len(row), len(row)), np.nan)
    for (a, b), rating in zip(judgements.pairs, judgements.ratings, strict=True):
        if a not in row or b not in row:
            raise InvalidInput(f"{judgements.name!r} rates {a!r} and {b!r}: one is no concept of the search")
        human[row[a], row[b]] = human[row[b], row[a]] = rating
    return human
