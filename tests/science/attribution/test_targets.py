"""Targets against the formulas written out in numpy float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.science.tiny import D_EMBED, tiny_head

from fulcrum.domain.errors import EmptyPrompts, InvalidTarget
from fulcrum.domain.tasks import CosineTarget, LogitTarget, LogProbTarget, MarginTarget, Target
from fulcrum.science.attribution.targets import (
    ZeroShotHead,
    margin_over_best_other,
    target_function,
    unit_norm,
)

EMBEDDINGS = 3 * torch.randn(5, D_EMBED, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def slow_logits(head: ZeroShotHead) -> np.ndarray:
    rows = []
    for v in EMBEDDINGS.numpy():
        row = []
        for c in head.class_embeddings.numpy():
            cosine = float(v @ c) / (math.sqrt(float(v @ v)) * math.sqrt(float(c @ c)))
            row.append(head.logit_scale * cosine + (head.logit_bias or 0.0))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("bias", [None, -9.5])
def test_every_target_is_its_formula_with_logit_scale_and_bias(bias: float | None) -> None:
    """Trap 6: a logit, probability or margin without the logit scale is another number altogether."""
    plain = tiny_head()
    head = ZeroShotHead(plain.class_names, plain.class_embeddings, 37.0, bias)
    logits = slow_logits(head)
    expected: dict[Target, np.ndarray] = {
        CosineTarget("b"): (logits[:, 1] - (bias or 0.0)) / 37.0,
        LogitTarget("b"): logits[:, 1],
        LogProbTarget("b"): logits[:, 1] - np.log(np.exp(logits).sum(axis=1)),
        MarginTarget("c", "a"): logits[:, 2] - logits[:, 0],
    }
    for target, values in expected.items():
        np.testing.assert_allclose(
            target_function(head, target)(EMBEDDINGS).numpy(), values, rtol=1e-10, atol=1e-12
        )
    best_other = np.maximum(logits[:, 0], logits[:, 2])
    np.testing.assert_allclose(
        margin_over_best_other(head, "b")(EMBEDDINGS).numpy(), logits[:, 1] - best_other
    )


def test_the_margin_over_the_best_other_is_positive_exactly_where_the_class_is_predicted() -> None:
    head = tiny_head()
    predictions = head.predictions(EMBEDDINGS)
    for name in head.class_names:
        margin = margin_over_best_other(head, name)(EMBEDDINGS)
        assert (margin > 0).tolist() == [p.top == name for p in predictions]


@pytest.mark.parametrize("target", [CosineTarget("b"), LogProbTarget("b"), MarginTarget("a", "b")])
def test_targets_do_not_depend_on_the_length_of_the_embedding(target: Target) -> None:
    y = target_function(tiny_head(), target)
    torch.testing.assert_close(y(EMBEDDINGS), y(1e3 * EMBEDDINGS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_embedding_of_zero_gives_cosine_0_and_a_finite_gradient(dtype: torch.dtype) -> None:
    """Trap 11."""
    v = torch.zeros(2, D_EMBED, dtype=dtype, requires_grad=True)
    y = target_function(tiny_head(), MarginTarget("a", "b"))(v)
    (gradient,) = torch.autograd.grad(y.sum(), v)
    assert y.tolist() == [0.0, 0.0]
    assert torch.isfinite(gradient).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(-35, 35), st.integers(0, 50))
def test_unit_vectors_have_length_1_whatever_the_scale(exponent: int, seed: int) -> None:
    v = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    torch.testing.assert_close(unit_norm(v).norm(dim=-1), torch.ones(3))


def test_the_gradient_of_the_unit_vector_is_exact() -> None:
    assert torch.autograd.gradcheck(unit_norm, (EMBEDDINGS.clone().requires_grad_(),))


def test_half_precision_embeddings_are_read_out_in_float32() -> None:
    logits = tiny_head().logits(EMBEDDINGS.to(torch.float16))
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), slow_logits(tiny_head()), atol=0.05)


def test_probabilities_are_a_softmax_or_a_sigmoid_as_the_model_was_trained() -> None:
    plain = tiny_head()
    logits = slow_logits(plain)
    soft = np.stack([p.probs for p in plain.predictions(EMBEDDINGS)])
    np.testing.assert_allclose(soft, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-9)
    siglip = ZeroShotHead(plain.class_names, plain.class_embeddings, 20.0, -3.0, "sigmoid")
    found = siglip.predictions(EMBEDDINGS)
    np.testing.assert_allclose(np.stack([p.probs for p in found]), 1 / (1 + np.exp(3.0 - logits)), rtol=1e-9)
    assert {p.probs_kind for p in found} == {"sigmoid"}


@pytest.mark.parametrize("target", [CosineTarget("z"), LogProbTarget("z"), MarginTarget("a", "z")])
def test_a_class_that_does_not_exist_is_refused(target: Target) -> None:
    with pytest.raises(InvalidTarget, match=r"'z' is not in the class set \['a', 'b', 'c'\]"):
        target_function(tiny_head(), target)


def test_a_margin_over_others_needs_others_and_a_head_one_embedding_per_class() -> None:
    with pytest.raises(InvalidTarget, match="no other class"):
        margin_over_best_other(tiny_head(1), "a")
    with pytest.raises(EmptyPrompts):
        ZeroShotHead(("a", "b"), torch.ones(3, 4), 1.0)
    with pytest.raises(EmptyPrompts):
        ZeroShotHead((), torch.ones(0, 4), 1.0)
