"""The perceptual hash against its published definition, and what it must survive."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from fulcrum.datasets.hygiene.decoding import decode_image
from fulcrum.datasets.hygiene.phash import hamming, phash, popcount, thumbnail, thumbnails_agree

from ..images import encoded, picture


def slow_phash(pixels):
    """As ImageHash computes it: scipy's DCT-II over both axes, low 8 x 8, above the median."""
    grey = Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    low = scipy.fft.dct(scipy.fft.dct(np.asarray(grey, dtype=float), axis=0), axis=1)[:8, :8]
    return int("".join("1" if bit else "0" for bit in (low > np.median(low)).ravel()), 2)


def distance(a, b):
    return bin(a ^ b).count("1")


@pytest.mark.parametrize("seed", range(25))
def test_the_hash_is_the_published_one(seed):
    pixels = picture(seed, size=(30 + 7 * seed, 150 - 5 * seed))
    assert phash(pixels) == slow_phash(pixels)


def test_flat_images_hash_alike_whatever_their_grey():
    hashes = {phash(np.full((20, 30, 3), grey, dtype=np.uint8)) for grey in (1, 77, 128, 255)}
    assert hashes == {1 << 63}


@pytest.mark.parametrize("seed", range(12))
def test_a_resized_brightened_or_recompressed_copy_stays_within_the_default_radius(seed):
    pixels = picture(seed, size=(120, 90))
    image = Image.fromarray(pixels)
    copies = [
        image.resize((60, 45), Image.Resampling.LANCZOS),
        image.resize((300, 200), Image.Resampling.BICUBIC),
        ImageEnhance.Brightness(image).enhance(0.85),
        ImageEnhance.Contrast(image).enhance(0.8),
        Image.fromarray(decode_image(encoded(pixels, "JPEG", quality=50)).pixels),
    ]
    small = np.stack([thumbnail(pixels), *(thumbnail(np.asarray(c)) for c in copies)])
    zeros, others = np.zeros(len(copies), dtype=np.int64), np.arange(1, len(copies) + 1)
    assert all(distance(phash(pixels), phash(np.asarray(c))) <= 6 for c in copies)
    assert thumbnails_agree(small, zeros, others).all()


def test_different_pictures_are_far_apart():
    hashes = [phash(picture(seed)) for seed in range(30)]
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_hamming_distances_count_bits(words, other):
    array = np.array(words, dtype=np.uint64)
    assert popcount(array).tolist() == [bin(w).count("1") for w in words]
    assert hamming(array, np.uint64(other)).tolist() == [distance(w, other) for w in words]


def test_flat_thumbnails_agree_with_flat_ones_only():
    flat, dark, drawn = (
        np.full((16, 16), 200, np.uint8),
        np.zeros((16, 16), np.uint8),
        thumbnail(picture(1)),
    )
    small = np.stack([flat, dark, drawn, 255 - drawn])
    agree = thumbnails_agree(small, np.array([0, 0, 2, 2]), np.array([1, 2, 2, 3]))
    assert agree.tolist() == [True, False, True, False]
