from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.domain.experts import Expertise
from fulcrum.science.experts.alignment import align, align_all, ceilings, spearman, triplet_accuracy
from fulcrum.science.experts.expert_sets import (
    best_experts,
    centred_cosine,
    experts_above,
    jaccard,
    stability,
)
from fulcrum.science.experts.structure import adjusted_rand, structure_of

DOMAINS = ["animal"] * 4 + ["tool"] * 4 + ["fruit"] * 4


def concept(ap: np.ndarray, n_pos: int = 4, n_neg: int = 10) -> Expertise:
    return Expertise(ap, *(np.zeros(len(ap)) for _ in range(7)), n_pos=n_pos, n_neg=n_neg)


def planted(noise: float = 0.2, seed: int = 0) -> list[Expertise]:
    """Twelve concepts in three domains that share half of what they are."""
    rng = np.random.default_rng(seed)
    shared = {d: rng.random(300) for d in sorted(set(DOMAINS))}
    return [concept(np.clip(0.5 * shared[d] + noise * rng.random(300), 0, 1)) for d in DOMAINS]


def test_experts_are_above_tau_or_the_best_k_with_ties_by_number():
    concepts = [concept(np.array([0.5, 0.9, 0.6, 0.6])), concept(np.array([0.1, 0.2, 0.3, 0.51]))]
    assert experts_above(concepts, 0.5).tolist() == [
        [False, True, True, True],
        [False, False, False, True],
    ]
    assert best_experts(concepts, 2)[0].tolist() == [False, True, True, False]
    with pytest.raises(InvalidSettings, match="number of units"):
        best_experts(concepts, 5)


def test_a_threshold_on_ap_across_base_rates_is_refused_and_the_best_k_are_not():
    concepts = [concept(np.array([0.5, 0.9])), concept(np.array([0.5, 0.2]), 80, 2500)]
    for ask in (lambda: experts_above(concepts, 0.5), lambda: centred_cosine(concepts)):
        with pytest.raises(InvalidInput, match="across base rates"):
            ask()
    assert best_experts(concepts, 1).sum() == 2


def test_jaccard_is_that_of_sets():
    rng = np.random.default_rng(3)
    experts = rng.random((6, 40)) < 0.2
    experts[5] = False
    sets = [set(np.flatnonzero(row)) for row in experts]
    want = [[len(a & b) / max(1, len(a | b)) for b in sets] for a in sets]
    assert jaccard(experts) == pytest.approx(np.array(want))


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=50, deadline=None)
def test_the_adjusted_rand_index_is_that_of_sklearn(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, n), rng.integers(0, 3, n)
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))


@given(st.integers(0, 10_000), st.integers(3, 30))
@settings(max_examples=50, deadline=None)
def test_the_rank_correlation_is_that_of_scipy(seed, n):
    rng = np.random.default_rng(seed)
    a, b = np.round(rng.random(n), 1), np.round(rng.random(n), 1)
    a[0], a[1], b[0], b[1] = 2, 3, 4, 5
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_planted_domains_come_back_as_clusters_and_neighbours():
    found = structure_of(centred_cosine(planted()), DOMAINS)
    assert found.ari == 1.0
    assert found.within > found.between + 0.5
    in_order = [DOMAINS[c] for c in found.order]
    assert sum(a != b for a, b in pairwise(in_order)) == 2
    assert found.positions.shape == (12, 2)
    assert 0.5 < found.map_share <= 1


def test_planted_similarity_aligns_and_random_ap_does_not():
    same = np.array([[a == b for b in DOMAINS] for a in DOMAINS])
    rng = np.random.default_rng(0)
    human = same + 0.1 * rng.random(same.shape)
    human = (human + human.T) / 2
    noise = centred_cosine([concept(rng.random(300)) for _ in DOMAINS])
    found = align_all(centred_cosine(planted()), noise, {"mean_activation": noise}, human)
    assert found["experts"].rho > 0.6
    assert found["experts"].p_value < 0.01
    assert found["experts"].ci_low < found["experts"].rho < found["experts"].ci_high
    assert abs(found["random_weights"].rho) < 0.35
    assert found["random_weights"].p_value > 0.01
    with pytest.raises(InvalidInput, match="baselines"):
        align_all(noise, noise, {}, human)


def test_pairs_without_a_rating_are_left_out_and_constant_ratings_refused():
    similarity = centred_cosine(planted())
    human = np.full(similarity.shape, np.nan)
    human[0, 1:4] = [1.0, 2.0, 3.0]
    assert align(similarity, human, 20, 20).n_pairs == 3
    human[0, 1:4] = 2.0
    with pytest.raises(InvalidInput, match="human ratings are all 2"):
        align(similarity, human, 20, 20)
    with pytest.raises(InvalidInput, match="at least three pairs"):
        align(similarity, np.full(similarity.shape, np.nan), 20, 20)


def test_ceilings_have_names_and_their_order():
    rng = np.random.default_rng(0)
    truth = rng.random(200)
    found = ceilings(truth[:, None] + 0.4 * rng.standard_normal((200, 12)))
    assert found["pairwise"] < found["leave_one_out"] < found["split_half_spearman_brown"]
    with pytest.raises(InvalidInput, match="rater 2"):
        ceilings(np.array([[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]]))
    with pytest.raises(InvalidInput, match="two raters"):
        ceilings(np.ones((4, 1)))


def test_the_odd_one_out_is_outside_of_the_closest_pair():
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    assert triplet_accuracy(similarity, np.array([[0, 1, 2], [0, 2, 1]])) == 0.5
    assert triplet_accuracy(np.ones((3, 3)), np.array([[0, 1, 2]])) == pytest.approx(1 / 3)
    with pytest.raises(InvalidInput, match="three different"):
        triplet_accuracy(similarity, np.array([[0, 0, 1]]))


def test_the_same_concepts_keep_their_experts_and_different_ones_do_not():
    one, again = (
        best_experts([concept(p.ap + 0.01 * np.random.default_rng(s).random(300)) for p in planted()], 30)
        for s in (1, 2)
    )
    same, different = stability(one, again)
    assert same.min() > different + 0.2
    with pytest.raises(InvalidInput, match="same units"):
        stability(one, again[:, :100])


def test_structure_needs_domains():
    similarity = centred_cosine(planted())
    with pytest.raises(InvalidInput, match="two domains"):
        structure_of(similarity, ["one"] * 12)
    with pytest.raises(InvalidInput, match="symmetric"):
        structure_of(np.triu(similarity), DOMAINS)
