import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, fisher_exact

from fulcrum.domain.errors import DatasetWithoutLabels, InvalidInput
from fulcrum.science.concepts.class_distribution import class_distribution


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any), st.data())
def test_counts_lift_and_exact_p_equal_the_definition(base, data):
    every_image = [c for c, n in enumerate(base) for _ in range(n)]
    top = data.draw(st.permutations(every_image))[: data.draw(st.integers(1, len(every_image)))]
    d = class_distribution(np.array(top), np.array(base))
    n_images, n = sum(base), len(top)
    for c, n_class in enumerate(base):
        k = top.count(c)
        assert d.counts[c] == k
        assert d.shares[c] == pytest.approx(k / n)
        assert d.lift[c] == pytest.approx(k / n / (n_class / n_images) if n_class else 0.0)
        ways = sum(math.comb(n_class, i) * math.comb(n_images - n_class, n - i) for i in range(k, n + 1))
        assert d.p_values[c] == pytest.approx(float(Fraction(ways, math.comb(n_images, n))), rel=1e-9)
    assert d.purity == pytest.approx(max(d.counts) / n)
    assert d.dominant == max(range(len(base)), key=top.count)
    assert d.entropy_bits == pytest.approx(entropy(d.counts, base=2), abs=1e-12)
    assert d.dominant_p == pytest.approx(min(1, d.p_values[d.dominant] * len(base)))


def test_p_is_that_of_fishers_exact_test_on_the_two_by_two_table():
    top, base = np.array([0] * 9 + [1] * 7), np.array([40, 60, 100])
    table = [[9, 31], [7, 153]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert class_distribution(top, base).p_values[0] == pytest.approx(expected, rel=1e-9)


def test_one_class_alone_is_pure_and_without_entropy():
    d = class_distribution(np.array([1, 1, 1]), np.array([5, 5]))
    assert (d.purity, d.entropy_bits, d.lift[1]) == (1.0, 0.0, 2.0)


def test_impossible_counts_are_refused():
    with pytest.raises(InvalidInput, match="holds 1"):
        class_distribution(np.array([0, 0]), np.array([1, 5]))
    with pytest.raises(InvalidInput, match="at least one"):
        class_distribution(np.array([], dtype=int), np.array([1, 5]))
    with pytest.raises(InvalidInput, match="do not lie"):
        class_distribution(np.array([2]), np.array([1, 5]))
    with pytest.raises(InvalidInput, match="do not lie"):
        class_distribution(np.array([-1]), np.array([1, 5]))
    with pytest.raises(InvalidInput, match="negative"):
        class_distribution(np.array([1]), np.array([-1, 5]))
    with pytest.raises(DatasetWithoutLabels):
        class_distribution(np.array([0]), np.array([0, 0]))
