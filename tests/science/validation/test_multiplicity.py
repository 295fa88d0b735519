import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.multiplicity import adjust

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(p_values, st.sampled_from(["bh", "by"]))
@settings(max_examples=80, deadline=None)
def test_adjusted_p_values_equal_statsmodels(p: list[float], method: str) -> None:
    expected = multipletests(p, method=f"fdr_{method}")[1]
    assert adjust(np.array(p), method) == pytest.approx(expected, abs=1e-12)


@given(p_values)
@settings(max_examples=40, deadline=None)
def test_bh_is_its_definition(p: list[float]) -> None:
    m, ordered = len(p), sorted(p)
    for value, q in zip(p, adjust(np.array(p)), strict=True):
        k = ordered.index(value)
        assert q == pytest.approx(min(1.0, *(m * ordered[j] / (j + 1) for j in range(k, m))))


@given(p_values, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_q_stays_with_its_test_when_the_tests_are_shuffled(p: list[float], random) -> None:
    order = random.sample(range(len(p)), len(p))
    q = adjust(np.array(p))
    assert adjust(np.array(p)[order]) == pytest.approx(q[order])


def test_the_false_discovery_rate_is_kept_where_the_wrongly_ranked_one_is_not() -> None:
    """SCIENCE.md 8, trap 16: ranks taken from one argsort realise 0.21 at nominal 0.10."""

    def wrongly_ranked(p: np.ndarray) -> np.ndarray:
        return np.minimum(1.0, p * len(p) / (np.argsort(p) + 1))

    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"ours": [], "wrong": []}
    for _ in range(400):
        null, real = rng.random(80), rng.beta(0.05, 20, size=20)
        p = np.concatenate([null, real])
        for name, q in (("ours", adjust(p)), ("wrong", wrongly_ranked(p))):
            found = q <= 0.1
            rates[name].append(found[:80].sum() / max(1, found.sum()))
    assert np.mean(rates["ours"]) <= 0.1
    assert np.mean(rates["wrong"]) > 0.12


def test_values_that_are_no_p_are_refused() -> None:
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(InvalidInput, match="must lie in"):
            adjust(np.array([0.5, bad]))


def test_an_empty_family_has_no_q() -> None:
    assert len(adjust(np.array([]))) == 0
