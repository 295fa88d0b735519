import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import cosine_similarity

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.concepts.scores import clarity, polysemanticity, redundancy

from .codes_of import seeds


def vectors(seed: int, n: int, d: int, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=d) + spread * rng.normal(size=(n, d))) * np.exp(rng.normal(size=(n, 1)))


def slow_clarity(v: np.ndarray) -> float:
    unit = [x / np.sqrt((x * x).sum()) for x in v]
    pairs = [float(a @ b) for a, b in itertools.permutations(unit, 2)]
    return sum(pairs) / len(pairs)


def inertia(v: np.ndarray, second: np.ndarray) -> float:
    return sum(((part - part.mean(axis=0)) ** 2).sum() for part in (v[~second], v[second]) if len(part))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(1, 6), st.sampled_from([0.01, 1.0, 100.0]))
def test_clarity_is_the_mean_off_diagonal_cosine(seed, n, d, spread):
    v = vectors(seed, n, d, spread)
    assert clarity(v) == pytest.approx(slow_clarity(v), abs=1e-12)
    assert -1 / (n - 1) <= clarity(v) <= 1


def test_clarity_reaches_both_ends_of_its_range():
    assert clarity(np.array([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]])) == pytest.approx(1.0)
    simplex = np.eye(4) - 0.25
    assert clarity(simplex) == pytest.approx(-1 / 3)
    assert clarity(np.array([[1.0], [-1.0]])) == -1.0


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(1, 5), st.integers(1, 13))
def test_redundancy_is_the_largest_cosine_with_another_latent_in_any_chunks(seed, n, d, chunk):
    means = vectors(seed, n, d)
    cosines = cosine_similarity(means)
    np.fill_diagonal(cosines, -np.inf)
    found = redundancy(means, chunk)
    np.testing.assert_allclose(found.values, cosines.max(axis=1), atol=1e-12)
    np.testing.assert_allclose(cosines[np.arange(n), found.nearest], cosines.max(axis=1), atol=1e-12)


def test_redundancy_is_a_value_per_latent_and_finds_the_twin():
    means = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], dtype=np.float32)
    found = redundancy(means)
    assert found.values.tolist() == [1.0, 0.0, 1.0]
    assert found.nearest.tolist() == [2, 0, 0]


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 10), st.integers(2, 10), st.floats(0.0, 0.15))
def test_two_planted_meanings_are_told_apart(seed, n_first, n_second, noise):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    true = np.array([False] * n_first + [True] * n_second)
    v = axes[true.astype(int)] + noise * rng.normal(size=(len(true), 8)) / np.sqrt(8)
    found = polysemanticity(v)
    assert (found.second == true).all()
    assert found.value == pytest.approx(1.0, abs=0.35)
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    centres = np.stack([unit[~true].mean(axis=0), unit[true].mean(axis=0)])
    assert found.value == pytest.approx(1 - slow_clarity(centres), abs=1e-12)


def smallest_inertia(v: np.ndarray) -> float:
    splits = itertools.product([False, True], repeat=len(v) - 1)
    return min(inertia(v, np.array([False, *rest])) for rest in splits if any(rest))


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_the_clusters_are_the_tightest_of_all_splits(n):
    for seed in range(15):
        v = vectors(seed, n, 5, spread=2.0)
        unit = v / np.linalg.norm(v, axis=1, keepdims=True)
        assert inertia(unit, polysemanticity(v).second) == pytest.approx(smallest_inertia(unit))


@pytest.mark.parametrize("n", [20, 40, 100])
def test_the_clusters_are_as_tight_as_those_of_sklearn_with_many_random_starts(n):
    for seed in range(4):
        v = vectors(seed, n, 5, spread=2.0)
        unit = v / np.linalg.norm(v, axis=1, keepdims=True)
        sklearn = KMeans(2, n_init=30, random_state=seed).fit(unit)
        assert inertia(unit, polysemanticity(v).second) <= sklearn.inertia_ * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(4, 12))
def test_no_image_is_nearer_to_the_centre_of_the_other_meaning(seed, n):
    v = vectors(seed, n, 4, spread=1.5)
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    second = polysemanticity(v).second
    assert 0 < second.sum() < n
    own, other = unit[second].mean(axis=0), unit[~second].mean(axis=0)
    for x, is_second in zip(unit, second, strict=True):
        gap = ((x - own) ** 2).sum() - ((x - other) ** 2).sum()
        assert gap <= 1e-9 if is_second else gap >= -1e-9


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(4, 12))
def test_polysemanticity_does_not_depend_on_order_scale_or_rotation(seed, n):
    rng = np.random.default_rng(seed)
    v = vectors(seed, n, 4, spread=1.5)
    value = polysemanticity(v).value
    assert 0 <= value <= 2
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    changed = (v * np.exp(rng.normal(size=(n, 1))))[rng.permutation(n)] @ rotation
    assert polysemanticity(changed).value == pytest.approx(value, abs=1e-9)


def test_one_meaning_scores_zero_and_opposite_ones_two():
    same = np.tile([[0.3, 0.1, -2.0]], (6, 1)) * np.arange(1, 7)[:, None]
    assert polysemanticity(same).value == pytest.approx(0.0, abs=1e-12)
    opposite = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]])
    found = polysemanticity(opposite)
    assert found.value == pytest.approx(2.0)
    assert found.second.tolist() == [False, False, True, True]


@pytest.mark.usefixtures("shape_checks_off")
def test_too_few_images_or_vectors_without_direction_are_refused():
    with pytest.raises(InvalidInput, match="n >= 2"):
        clarity(np.ones((1, 3)))
    with pytest.raises(InvalidInput, match="n >= 4"):
        polysemanticity(np.ones((3, 3)))
    with pytest.raises(InvalidInput, match="2 latents"):
        redundancy(np.ones((1, 3)))
    with pytest.raises(InvalidInput):
        clarity(np.ones(3))
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidInput, match="finite"):
            clarity(np.array([[1.0, 0.0], [bad, 1.0]]))
    with pytest.raises(InvalidInput, match="zeros"):
        clarity(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(InvalidInput, match="zeros"):
        redundancy(np.array([[1.0, 0.0], [0.0, 0.0]]))
