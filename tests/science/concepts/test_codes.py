import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.sae.sparse import SparseLatents

from .codes_of import dense, seeds


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 5), st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.0, 0.2, 1.0]))
def test_per_image_pools_like_the_dense_array(seed, n_images, tokens, d_sae, density):
    z = dense(seed, n_images * tokens, d_sae, density)
    codes = SparseCodes.from_dense(z)
    per_image = z.reshape(n_images, tokens, d_sae)
    assert codes.per_image(tokens, "max").to_dense() == pytest.approx(per_image.max(axis=1))
    assert codes.per_image(tokens, "mean").to_dense() == pytest.approx(
        per_image.mean(axis=1, dtype=float), rel=1e-6
    )
    np.testing.assert_array_equal(codes.to_dense(), z)


def test_latents_of_an_sae_arrive_unchanged():
    z = torch.from_numpy(dense(0, 7, 5))
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        codes = SparseCodes.from_sparse(SparseLatents.from_dense(z.to(dtype)))
        np.testing.assert_array_equal(codes.to_dense(), z.to(dtype).float().numpy())


@pytest.mark.parametrize(
    ("offsets", "latents", "values", "error"),
    [
        ([0, 1], [0], [-1.0], InvalidInput),
        ([0, 1], [0], [0.0], InvalidInput),
        ([0, 1], [0], [np.nan], InvalidInput),
        ([0, 1], [0], [1e300], InvalidInput),
        ([0, 2], [1, 0], [1.0, 1.0], InvalidInput),
        ([0, 2], [1, 1], [1.0, 1.0], InvalidInput),
        ([0, 1], [4], [1.0], LatentOutOfRange),
        ([0, 1], [-1], [1.0], LatentOutOfRange),
        ([0, 2], [0], [1.0], InvalidInput),
        ([1, 1], [0], [1.0], InvalidInput),
        ([0, 1, 0, 1], [0], [1.0], InvalidInput),
        ([], [], [], InvalidInput),
    ],
)
def test_broken_codes_are_refused(offsets, latents, values, error):
    with pytest.raises(error):
        SparseCodes(np.array(offsets, int), np.array(latents, int), np.array(values, float), 4)


def test_a_negative_code_of_topk_without_relu_is_refused_not_dropped():
    with pytest.raises(InvalidInput, match="above zero"):
        SparseCodes.from_dense(np.array([[0.5, -0.5]]))


def test_the_last_latent_of_a_row_and_the_first_of_the_next_may_be_the_same():
    codes = SparseCodes(np.array([0, 1, 2, 2]), np.array([3, 3]), np.array([1.0, 2.0]), 4)
    assert codes.to_dense()[:, 3].tolist() == [1.0, 2.0, 0.0]


def test_half_an_image_is_refused():
    codes = SparseCodes.from_dense(dense(0, 5, 3))
    with pytest.raises(InvalidInput, match="whole images"):
        codes.per_image(2)
    with pytest.raises(InvalidInput):
        codes.per_image(0)
