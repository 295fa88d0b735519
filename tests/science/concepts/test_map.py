import math

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.concepts.map import latent_map, memberships


def test_neighbours_on_the_map_are_neighbours_by_cosine():
    digits, _ = load_digits(n_class=10, return_X_y=True)
    digits = digits[:400]
    places = latent_map(digits)
    assert trustworthiness(digits, places, n_neighbors=10, metric="cosine") > 0.94
    assert np.abs(places).max() == pytest.approx(1.0)


def test_memberships_are_those_of_the_paper_found_one_row_at_a_time():
    distances = np.sort(np.random.default_rng(3).uniform(0.1, 1.0, (5, 8)), axis=1)
    found = memberships(distances)
    for row, member in zip(distances, found, strict=True):
        low, high = 1e-9, 1e3
        for _ in range(200):
            sigma = math.sqrt(low * high)
            total = sum(math.exp(-max(0.0, d - row[0]) / sigma) for d in row)
            low, high = (low, sigma) if total > math.log2(8) else (sigma, high)
        expected = [math.exp(-max(0.0, d - row[0]) / sigma) for d in row]
        assert member == pytest.approx(expected, abs=1e-6)


def test_the_same_vectors_and_seed_give_the_same_map_and_another_seed_another():
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    assert np.array_equal(latent_map(vectors), latent_map(vectors))
    assert not np.array_equal(latent_map(vectors), latent_map(vectors, seed=1))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_few_or_equal_vectors_have_finite_places(n):
    vectors = np.random.default_rng(0).normal(size=(n, 3))
    assert latent_map(vectors).shape == (n, 2)
    for made in (latent_map(vectors), latent_map(np.ones((n, 3)))):
        assert np.isfinite(made).all()
        assert np.abs(made).max() <= 1.0


def test_a_vector_without_direction_has_no_place():
    with pytest.raises(InvalidInput, match="zeros"):
        latent_map(np.zeros((3, 4)))
