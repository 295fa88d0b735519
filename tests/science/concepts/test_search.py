import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.search import search_by_image, search_by_words

from .codes_of import seeds


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 10), st.integers(1, 5), st.integers(1, 12))
def test_words_find_the_latents_of_the_largest_cosine(seed, n, d, k):
    rng = np.random.default_rng(seed)
    query, embeddings = rng.normal(size=d), rng.normal(size=(n, d))
    latents = rng.permutation(100)[:n]
    hits = search_by_words(query, embeddings, latents, k)
    cosines = cosine_similarity(embeddings, query[None])[:, 0]
    np.testing.assert_allclose(hits.scores, sorted(cosines, reverse=True)[:k], atol=1e-12)
    of = dict(zip(latents.tolist(), cosines, strict=True))
    np.testing.assert_allclose([of[j] for j in hits.latents.tolist()], hits.scores, atol=1e-12)


@pytest.mark.usefixtures("shape_checks_off")
def test_what_is_compared_with_what_never_depends_on_equal_sizes():
    """Trap 10: a (d, d) query or transposed embeddings have shapes that a guess would accept."""
    square = np.eye(4)
    latents = np.arange(4)
    with pytest.raises(InvalidInput, match="d_embed"):
        search_by_words(square, square, latents)
    with pytest.raises(InvalidInput, match="d_embed"):
        search_by_words(np.ones((1, 4)), square, latents)
    with pytest.raises(InvalidInput, match="d_embed"):
        search_by_words(np.ones(5), np.ones((5, 4)), np.arange(5))
    with pytest.raises(InvalidInput, match="latents of shape"):
        search_by_words(np.ones(4), np.ones((5, 4)), latents)
    with pytest.raises(InvalidInput, match="zeros"):
        search_by_words(np.zeros(4), square, latents)


def test_equal_hits_come_by_latent_number():
    hits = search_by_words(
        np.array([1.0, 0.0]), np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([9, 3, 1])
    )
    assert hits.latents.tolist() == [3, 9, 1]


def test_an_image_is_ranked_by_what_is_strong_for_the_latent_itself():
    typical = np.array([100.0, 1.0, 4.0, 0.0])
    hits = search_by_image(np.array([0, 1, 2, 3]), np.array([50.0, 2.0, 4.0, 7.0]), typical)
    assert hits.latents.tolist() == [1, 2, 0]
    assert hits.scores.tolist() == [2.0, 1.0, 0.5]
    assert hits.unseen.tolist() == [3]
    assert search_by_image(np.array([0, 1]), np.array([50.0, 2.0]), typical, k=1).latents.tolist() == [1]
    assert len(search_by_image(np.array([], dtype=int), np.array([]), typical).latents) == 0


@pytest.mark.usefixtures("shape_checks_off")
def test_images_without_sense_are_refused():
    typical = np.ones(3)
    with pytest.raises(LatentOutOfRange):
        search_by_image(np.array([3]), np.array([1.0]), typical)
    with pytest.raises(InvalidInput, match="twice"):
        search_by_image(np.array([1, 1]), np.array([1.0, 1.0]), typical)
    with pytest.raises(InvalidInput, match="above zero"):
        search_by_image(np.array([1]), np.array([-1.0]), typical)
    with pytest.raises(InvalidInput, match="typical"):
        search_by_image(np.array([1]), np.array([1.0]), -typical)
    with pytest.raises(InvalidInput, match="n_active"):
        search_by_image(np.array([1, 2]), np.array([1.0]), typical)
    with pytest.raises(InvalidInput, match="k=0"):
        search_by_image(np.array([1]), np.array([1.0]), typical, k=0)
