"""Embeddings of images that somebody else decoded."""

import io

import numpy as np
import pytest
from PIL import Image
from tests.datasets.images import encoded, picture

from fulcrum.demo.shipped import demo_model
from fulcrum.domain.errors import ImageTooLarge
from fulcrum.engine.image_embedding import ImageEmbedder
from fulcrum.engine.local import LocalEngine


@pytest.fixture(scope="module")
def engine():
    return LocalEngine()


@pytest.fixture(scope="module")
def embedder(engine):
    return ImageEmbedder(engine.residency.model(demo_model()))


def test_they_are_those_of_the_encoded_images_whoever_stands_beside_them(engine, embedder):
    pictures = [picture(seed, (50 + seed, 40)) for seed in range(40)]
    expected = engine.encode_images(demo_model(), [encoded(p) for p in pictures])
    prepared = [embedder.prepare(p) for p in pictures]
    found = embedder.embed(prepared)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # The same bits alone, and with images between that have no embedding.
    np.testing.assert_array_equal(embedder.embed(prepared[7:8])[0], found[7])
    holes = embedder.embed([None, prepared[3], None, prepared[7]])
    np.testing.assert_array_equal(holes[[1, 3]], found[[3, 7]])
    assert not holes[[0, 2]].any()
    assert embedder.embed([]).shape == (0, found.shape[1])


def test_what_it_prepares_is_what_the_model_makes_of_the_file(embedder):
    pixels = picture(1)
    image = Image.open(io.BytesIO(encoded(pixels))).convert("RGB")
    np.testing.assert_array_equal(embedder.prepare(pixels), embedder.loaded.preprocess([image])[0].numpy())
    with pytest.raises(ImageTooLarge, match="too long a strip"):
        embedder.prepare(np.zeros((1, 40_000, 3), np.uint8))


def test_its_identity_is_all_that_determines_an_embedding(embedder):
    info = embedder.loaded.info
    assert embedder.identity == {
        "model_sha256": info.weights_sha256,
        "preprocess_sha256": info.preprocess_sha256,
        "device_type": "cpu",
        "dtype": info.dtype,
    }
