import numpy as np
import pytest

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.concepts.embeddings import latent_means, mean_embedding
from fulcrum.science.concepts.top_images import StreamingTopImages
from fulcrum.science.concepts.vectors import unit_vectors

from .codes_of import dense


def test_means_are_of_unit_vectors_of_the_top_images_only():
    z = dense(0, 20, 4, density=0.5)
    z[:, 2] = 0
    z[3:, 3] = 0
    z[0, 3], z[1:3, 3] = 1.0, 0.0  # one image only
    streaming = StreamingTopImages(4, 5)
    streaming.update(np.arange(20), SparseCodes.from_dense(z))
    embeddings = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    found = latent_means(embeddings, streaming.result())
    assert found.latents.tolist() == [0, 1]
    for row, latent in zip(found.means, found.latents, strict=True):
        top = sorted(range(20), key=lambda i: -z[i, latent])[:5]
        expected = np.mean([embeddings[i] / np.linalg.norm(embeddings[i].astype(float)) for i in top], axis=0)
        np.testing.assert_allclose(row, expected, atol=1e-12)
    assert latent_means(embeddings, streaming.result(), n_images_min=1).latents.tolist() == [0, 1, 3]
    with pytest.raises(InvalidInput, match="no embedding"):
        latent_means(embeddings[:5], streaming.result())
    with pytest.raises(InvalidInput):
        latent_means(embeddings, streaming.result(), n_images_min=0)


def test_images_that_cancel_are_an_error():
    with pytest.raises(ComputationFailed, match="cancel"):
        mean_embedding(np.array([[1.0, 0.0], [-3.0, 0.0]]))


def test_tiny_and_huge_vectors_have_directions_too():
    unit = unit_vectors(np.array([[3e-200, 4e-200], [3e200, 4e200]]), "v")
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.6, 0.8]])
