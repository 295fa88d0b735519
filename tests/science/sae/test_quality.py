"""Quality numbers against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.sae.drawn import drawn_sae, tokens

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.models import Variant
from fulcrum.science.sae.quality import evaluate_sae, faithfulness, untrained_twin
from fulcrum.science.sae.variants import VARIANTS


@pytest.mark.parametrize("variant", list(VARIANTS))
@settings(max_examples=5, deadline=None)
@given(n=st.integers(2, 40), piece=st.integers(1, 20), chunk=st.integers(1, 9))
def test_streamed_quality_equals_the_definition_whatever_the_chunks(
    variant: Variant, n: int, piece: int, chunk: int
) -> None:
    sae, x = drawn_sae(variant), tokens(n)
    quality = evaluate_sae(sae, x.split(piece), chunk)
    wide, x_hat = x.double().numpy(), sae(x).double().numpy()
    z = sae.encode(x).numpy()
    fvu = ((wide - x_hat) ** 2).sum() / ((wide - wide.mean(0)) ** 2).sum()
    cosines = (wide * x_hat).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(x_hat, axis=1)
    assert quality.fvu == pytest.approx(fvu, rel=1e-4)
    assert quality.explained_variance == pytest.approx(1 - quality.fvu)
    assert quality.l0 == pytest.approx((z > 0).sum() / n)
    assert quality.dead_share == pytest.approx((z.max(0) <= 0).mean())
    assert quality.cosine == pytest.approx(cosines.mean(), rel=1e-4)
    assert quality.n_tokens == n


def test_variance_is_per_dimension_and_survives_a_large_common_mean() -> None:
    """A mean over all numbers would call the offset variance; a naive sum of squares would lose it."""
    sae = drawn_sae("relu")
    sae.norm_scale.fill_(1.0)
    x = torch.randn(200, 8) * 0.01 + 1000 * torch.arange(1.0, 9.0)
    sae.norm_mean.copy_(x.double().mean(0))
    for parameter, value in ((sae.W_enc, 0.0), (sae.b_enc, -1.0), (sae.b_dec, 0.0)):
        parameter.fill_(value)
    assert evaluate_sae(sae, [x]).fvu == pytest.approx(1.0, rel=0.01)


def test_quality_of_nothing_or_of_nonsense_is_an_error() -> None:
    sae = drawn_sae("relu")
    with pytest.raises(InvalidInput, match="at least one token"):
        evaluate_sae(sae, [])
    with pytest.raises(ComputationFailed, match="equal"):
        evaluate_sae(sae, [torch.ones(5, 8)])
    x = tokens(5)
    x[2, 2] = torch.nan
    with pytest.raises(ComputationFailed, match="nan"):
        evaluate_sae(sae, [x])


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_an_untrained_twin_has_the_same_shape_and_norms_and_other_directions(variant: Variant) -> None:
    sae = drawn_sae(variant)
    twin = untrained_twin(sae)
    assert twin.config == sae.config
    torch.testing.assert_close(twin.W_dec.norm(dim=1), sae.W_dec.norm(dim=1))
    torch.testing.assert_close(twin.W_enc.norm(dim=0), sae.W_enc.norm(dim=0))
    assert not torch.allclose(twin.W_dec, sae.W_dec)
    assert torch.equal(twin.norm_mean, sae.norm_mean)
    assert torch.equal(untrained_twin(sae, 1).W_dec, untrained_twin(sae, 1).W_dec)


def slow_cross_entropy(cosines: np.ndarray, labels: np.ndarray, scale: float) -> float:
    total = 0.0
    for row, label in zip(cosines, labels, strict=True):
        total += math.log(sum(math.exp(scale * (float(value) - float(row[label]))) for value in row))
    return total / len(labels)


def drawn_cosines(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.1, 0.4, (20, 5))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1.0, 100.0))
def test_recovered_cross_entropy_and_agreement_equal_their_definition(seed: int, scale: float) -> None:
    original, reconstructed, zeroed = (drawn_cosines(3 * seed + i) for i in range(3))
    labels = np.random.default_rng(seed).integers(0, 5, 20)
    answer = faithfulness(original, reconstructed, zeroed, labels, scale)
    ce = [slow_cross_entropy(array, labels, scale) for array in (original, reconstructed, zeroed)]
    assert answer.ce_original == pytest.approx(ce[0])
    assert answer.ce_recovered == pytest.approx((ce[2] - ce[1]) / (ce[2] - ce[0]))
    assert answer.top1_agreement == np.mean(original.argmax(1) == reconstructed.argmax(1))


def test_the_logit_scale_matters() -> None:
    """Trap 6: on bare cosines even a bad reconstruction recovers nearly everything in absolute terms."""
    labels = np.zeros(20, dtype=np.int64)
    arrays = [drawn_cosines(i) for i in range(3)]
    with_scale = faithfulness(arrays[0], arrays[1], arrays[2], labels, 100.0)
    without = faithfulness(arrays[0], arrays[1], arrays[2], labels, 1.0)
    assert with_scale.ce_original > 2 * without.ce_original
    assert abs(without.ce_original - math.log(5)) < 0.2


def test_a_perfect_reconstruction_recovers_everything_and_zeroing_nothing() -> None:
    labels = np.arange(20) % 5
    original, zeroed = drawn_cosines(0), drawn_cosines(1)
    assert faithfulness(original, original, zeroed, labels, 100.0).ce_recovered == 1.0
    assert faithfulness(original, zeroed, zeroed, labels, 100.0).ce_recovered == 0.0
    with pytest.raises(ComputationFailed, match="nothing to recover"):
        faithfulness(original, original, original, labels, 100.0)


def test_logits_that_cannot_be_compared_are_refused() -> None:
    a, labels = drawn_cosines(0), np.arange(20) % 5
    with pytest.raises(InvalidInput, match="reconstructed has shape"):
        faithfulness(a, a[:, :4], a, labels, 100.0)
    with pytest.raises(InvalidInput, match="n_images=19"):
        faithfulness(a, a, a, labels[:19], 100.0)
    with pytest.raises(InvalidInput, match="labels"):
        faithfulness(a, a, a, labels + 1, 100.0)
    with pytest.raises(InvalidInput, match="logit_scale"):
        faithfulness(a, a, a, labels, 0.0)
    bad = a.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ComputationFailed, match="zeroed"):
        faithfulness(a, a, bad, labels, 100.0)
