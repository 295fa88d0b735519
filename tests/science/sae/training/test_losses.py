"""Losses of the autograd variants against twins written token by token from the papers."""

import math

import pytest
import torch
from torch import Tensor

from fulcrum.domain.models import Variant
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.dense_step import DenseStep
from fulcrum.science.sae.training.losses import gated_loss, jumprelu_loss, relu_loss
from fulcrum.science.sae.variants import build_sae

D_IN, D_SAE, N = 5, 9, 7


def drawn_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    weights = {
        "W_enc": drawn(D_IN, D_SAE),
        "b_enc": drawn(D_SAE),
        "W_dec": drawn(D_SAE, D_IN),
        "b_dec": drawn(D_IN),
        "r_mag": drawn(D_SAE),
        "b_mag": drawn(D_SAE),
    }
    weights["threshold"] = drawn(D_SAE).detach().abs().requires_grad_()
    return weights


@pytest.fixture
def u() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_relu_loss_is_squared_error_plus_weighted_l1(u: Tensor) -> None:
    weights = drawn_weights()
    loss, residual, z = relu_loss(weights, u, l1_weight=0.3)
    total = 0.0
    for t in range(N):
        pre = ((u[t] - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).detach()
        code = [max(0.0, float(value)) for value in pre]
        x_hat = [
            sum(code[j] * float(weights["W_dec"][j, i].detach()) for j in range(D_SAE))
            + float(weights["b_dec"][i].detach())
            for i in range(D_IN)
        ]
        total += sum((x_hat[i] - float(u[t, i])) ** 2 for i in range(D_IN))
        total += (
            0.3
            * math.sqrt(D_IN)
            * sum(code[j] * float(weights["W_dec"][j].detach().norm()) for j in range(D_SAE))
        )
        assert z[t].tolist() == pytest.approx(code)
        assert (residual[t] + u[t]).tolist() == pytest.approx(x_hat)
    assert float(loss.detach()) == pytest.approx(total / N)


def test_jumprelu_loss_counts_active_latents(u: Tensor) -> None:
    weights = drawn_weights()
    loss, residual, z = jumprelu_loss(weights, u, l0_weight=0.01, bandwidth=0.4)
    total = 0.0
    for t in range(N):
        pre = ((u[t] - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).detach()
        code = [
            float(p) if float(p) > float(h.detach()) else 0.0
            for p, h in zip(pre, weights["threshold"], strict=True)
        ]
        assert z[t].tolist() == pytest.approx(code)
        total += float(residual[t].detach().square().sum()) + 0.01 * D_IN * sum(c > 0 for c in code)
    assert float(loss.detach()) == pytest.approx(total / N)


def test_thresholds_learn_through_the_rectangle_kernel(u: Tensor) -> None:
    """`-(theta/eps) K dL/dz` from the latents and `-(1/eps) K` from the L0 count, with K = 1[|d| < 1/2]."""
    weights, bandwidth, l0_weight = drawn_weights(), 0.8, 0.01
    loss, residual, _ = jumprelu_loss(weights, u, l0_weight, bandwidth)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    expected = [0.0] * D_SAE
    near = 0
    for t in range(N):
        pre = ((u[t] - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).detach()
        for j in range(D_SAE):
            theta = float(weights["threshold"][j].detach())
            if abs((float(pre[j]) - theta) / bandwidth) < 0.5:
                near += 1
                to_latent = 2 / N * float(residual[t].detach() @ weights["W_dec"][j].detach())
                expected[j] -= theta / bandwidth * to_latent
                expected[j] -= l0_weight * D_IN / N / bandwidth
    assert near >= 5
    gradient = weights["threshold"].grad
    assert gradient is not None
    assert gradient.tolist() == pytest.approx(expected)


def test_encoder_of_a_jumprelu_sae_learns_from_active_latents_only(u: Tensor) -> None:
    weights = drawn_weights()
    with torch.no_grad():
        weights["threshold"][4] = 1e6
    loss, _, _ = jumprelu_loss(weights, u, 0.01, 0.4)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    gradient = weights["W_enc"].grad
    assert gradient is not None
    assert (gradient[:, 4] == 0).all()
    assert (gradient.abs().sum(0) > 0).sum() >= D_SAE - 2


def test_gated_loss_has_the_papers_three_terms(u: Tensor) -> None:
    weights = drawn_weights()
    loss, _, z = gated_loss(weights, u, l1_weight=0.2)
    total = 0.0
    for t in range(N):
        product = ((u[t] - weights["b_dec"]) @ weights["W_enc"]).detach()
        gate = product + weights["b_enc"].detach()
        magnitude = product * weights["r_mag"].detach().exp() + weights["b_mag"].detach()
        code = torch.tensor(
            [max(0.0, float(m)) if float(g) > 0 else 0.0 for g, m in zip(gate, magnitude, strict=True)],
            dtype=torch.float64,
        )
        opened = torch.tensor([max(0.0, float(g)) for g in gate], dtype=torch.float64)
        decoder, b_dec = weights["W_dec"].detach(), weights["b_dec"].detach()
        total += float((u[t] - (code @ decoder + b_dec)).square().sum())
        total += float((u[t] - (opened @ decoder + b_dec)).square().sum())
        total += 0.2 * math.sqrt(D_IN) * float(opened.sum())
        assert z[t].tolist() == pytest.approx(code.tolist())
    assert float(loss.detach()) == pytest.approx(total / N)


def test_the_gates_own_reconstruction_does_not_train_the_decoder(u: Tensor) -> None:
    weights = drawn_weights()
    with torch.no_grad():
        weights["b_mag"].fill_(-1e6)  # no latent is active: only the frozen decoder is used
    loss, _, z = gated_loss(weights, u, 0.2)
    assert (z == 0).all()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    assert weights["W_dec"].grad is not None
    assert (weights["W_dec"].grad == 0).all()
    assert weights["b_enc"].grad is not None
    assert (weights["b_enc"].grad != 0).any()


@pytest.mark.parametrize("variant", ["relu", "jumprelu", "gated"])
def test_a_step_says_the_whole_loss_of_its_batch(variant: Variant, u: Tensor) -> None:
    config = TrainConfig(variant, D_IN, D_SAE, n_tokens=10_000, k=1, sparsity_warmup_share=0.0)
    sae = build_sae(config.sae_config()).requires_grad_(False).double()
    for name, value in drawn_weights().items():
        if hasattr(sae, name):
            getattr(sae, name).copy_(value.detach())
    step = DenseStep(sae, config)
    weights = {name: value.detach() for name, value in step.parameters.items()}
    match variant:
        case "relu":
            expected, _, _ = relu_loss(weights, u, config.l1_weight)
        case "gated":
            expected, _, _ = gated_loss(weights, u, config.l1_weight)
        case _:
            expected, _, _ = jumprelu_loss(weights, u, config.l0_weight, config.bandwidth)
    result = step.gradients(u, torch.zeros(D_SAE, dtype=torch.bool), 0.5)
    torch.testing.assert_close(result.loss, expected)
    assert float(result.loss) > float(result.residual.square().sum() / N)
