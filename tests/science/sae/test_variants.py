"""What every variant computes, against slow float64 twins written from the papers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.sae.drawn import OPTIONS, drawn_sae, tokens
from torch import Tensor

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.domain.models import Variant
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.matryoshka import MatryoshkaSae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.sae.variants import VARIANTS, build_sae

ALL = list(VARIANTS)


def slow_latents(sae: Sae, x: Tensor) -> list[list[float]]:
    """One token and one latent at a time, in float64."""
    mean, scale = sae.norm_mean.double(), float(sae.norm_scale)
    encoder, bias, b_dec = sae.W_enc.double(), sae.b_enc.double(), sae.b_dec.double()
    rows = []
    for token in x.double():
        u = [(float(token[i]) - float(mean[i])) * scale - float(b_dec[i]) for i in range(len(token))]
        product = [sum(u[i] * float(encoder[i, j]) for i in range(len(u))) for j in range(sae.config.d_sae)]
        pre = [product[j] + float(bias[j]) for j in range(sae.config.d_sae)]
        match sae.config.variant:
            case "relu":
                z = [max(0.0, value) for value in pre]
            case "topk":
                kept = sorted(range(len(pre)), key=lambda j: -pre[j])[: sae.config.options["k"]]
                z = [max(0.0, value) if j in kept else 0.0 for j, value in enumerate(pre)]
            case "batch_topk" | "matryoshka":
                theta = float(sae.get_buffer("theta"))
                z = [value if value > theta and value > 0 else 0.0 for value in pre]
            case "jumprelu":
                threshold = sae.get_parameter("threshold").double()
                z = [value if value > float(threshold[j]) else 0.0 for j, value in enumerate(pre)]
            case "gated":
                r_mag, b_mag = sae.get_parameter("r_mag").double(), sae.get_parameter("b_mag").double()
                z = [
                    max(0.0, product[j] * math.exp(float(r_mag[j])) + float(b_mag[j])) if pre[j] > 0 else 0.0
                    for j in range(len(pre))
                ]
        rows.append(z)
    return rows


@pytest.mark.parametrize("variant", ALL)
def test_latents_equal_the_formula_of_the_paper(variant: Variant) -> None:
    sae, x = drawn_sae(variant), tokens(6)
    expected = torch.tensor(slow_latents(sae, x), dtype=torch.float64)
    assert (expected > 0).any()
    torch.testing.assert_close(sae.encode(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ALL)
def test_reconstruction_is_in_model_units(variant: Variant) -> None:
    sae, x = drawn_sae(variant), tokens(6)
    z = sae.encode(x).double()
    expected = (z @ sae.W_dec.double() + sae.b_dec.double()) / float(sae.norm_scale) + sae.norm_mean.double()
    torch.testing.assert_close(sae(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ALL)
def test_one_unit_of_a_latent_moves_the_reconstruction_by_its_direction(variant: Variant) -> None:
    sae = drawn_sae(variant)
    z = torch.rand(1, 24)
    more = z.clone()
    more[0, 5] += 1.0
    moved = sae.decode(more) - sae.decode(z)
    torch.testing.assert_close(moved, sae.directions(torch.tensor([5])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 9), chunk=st.integers(1, 4), d_sae=st.integers(9, 40))
def test_sparse_and_dense_latents_agree_and_are_never_negative(
    variant: Variant, seed: int, n: int, chunk: int, d_sae: int
) -> None:
    sae, x = drawn_sae(variant, d_sae=d_sae, seed=seed), tokens(n, seed=seed)
    dense, sparse = sae.encode(x), sae.encode_sparse(x, chunk)
    assert (dense >= 0).all()
    assert (sparse.values > 0).all()
    assert sparse.n_tokens == n
    # Products over fewer rows may round differently, so the last digit may differ between chunks.
    torch.testing.assert_close(sparse.to_dense(), dense, rtol=1e-5, atol=1e-5)
    same = SparseLatents.from_dense(sparse.to_dense())
    assert torch.equal(same.latents, sparse.latents)
    assert torch.equal(same.offsets, sparse.offsets)


@pytest.mark.parametrize("variant", ALL)
def test_selected_latents_are_those_of_the_whole_code(variant: Variant) -> None:
    sae, x = drawn_sae(variant), tokens(10).reshape(2, 5, 8)
    chosen = torch.tensor([7, 0, 23])
    torch.testing.assert_close(sae.encode_selected(x, chosen), sae.encode(x)[..., chosen])


def test_selecting_encoder_columns_of_a_topk_sae_would_be_wrong() -> None:
    """Trap 17: the k largest of a selection are not the selection of the k largest."""
    assert not VARIANTS["topk"].pointwise
    assert all(cls.pointwise for name, cls in VARIANTS.items() if name != "topk")


def test_topk_latents_are_not_negative_even_where_fewer_than_k_pre_activations_are_positive() -> None:
    """Trap 12."""
    sae = drawn_sae("topk")
    sae.b_enc.fill_(-100.0)
    assert (sae.encode(tokens(4)) == 0).all()
    assert sae.encode_sparse(tokens(4)).values.shape == (0,)


def test_wide_topk_codes_come_from_the_staged_selection_unchanged() -> None:
    sae = drawn_sae("topk", d_sae=512)
    x = tokens(40)
    pre = sae.pre_acts(x)
    kth = pre.topk(3, dim=1).values[:, -1:]
    torch.testing.assert_close(sae.encode(x), torch.relu(pre) * (pre >= kth))


def test_a_batch_topk_code_does_not_depend_on_the_rest_of_the_batch() -> None:
    """Trap 8: with the batch rule instead of theta, company would change a token's code."""
    sae, x = drawn_sae("batch_topk"), tokens(50)
    alone = torch.cat([sae.encode(x[i : i + 1]) for i in range(50)])
    torch.testing.assert_close(alone, sae.encode(x))


def test_every_prefix_of_a_matryoshka_sae_reconstructs_from_its_latents_alone() -> None:
    sae, x = drawn_sae("matryoshka"), tokens(4)
    assert isinstance(sae, MatryoshkaSae)
    z = sae.encode(x)
    cut = z.clone()
    cut[:, 4:] = 0
    torch.testing.assert_close(sae.decode_prefix(z, 4), sae.decode(cut))
    with pytest.raises(InvalidSaeConfig, match="not one of the prefixes"):
        sae.decode_prefix(z, 5)


@pytest.mark.parametrize("k", [0, -1, 25, None, 2.0, True, "3"])
def test_an_impossible_k_is_refused(k: object) -> None:
    with pytest.raises(InvalidSaeConfig, match="k="):
        build_sae(SaeConfig("topk", 8, 24, options={"k": k}))


@pytest.mark.parametrize(
    "prefixes", [None, [], [4], [9, 4, 24], [4, 4, 24], [0, 24], [4, 25], [4.0, 24], "24"]
)
def test_impossible_prefixes_are_refused(prefixes: object) -> None:
    with pytest.raises(InvalidSaeConfig, match="prefixes"):
        build_sae(SaeConfig("matryoshka", 8, 24, options={"k": 3, "prefixes": prefixes}))


@pytest.mark.parametrize(("d_in", "d_sae"), [(0, 4), (4, 0), (-1, 4)])
def test_an_sae_without_width_is_refused(d_in: int, d_sae: int) -> None:
    with pytest.raises(InvalidSaeConfig, match=">= 1"):
        SaeConfig("relu", d_in, d_sae)


def test_every_variant_is_drawn_by_these_tests() -> None:
    assert set(OPTIONS) == set(VARIANTS)
