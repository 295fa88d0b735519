"""The graph-free step against the same loss through autograd."""

import pytest
import torch
from torch import Tensor

from fulcrum.domain.models import Variant
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.sparse_step import SparseStep
from fulcrum.science.sae.variants import build_sae

D_IN, D_SAE, K, N = 12, 40, 4, 30


def drawn_step(variant: Variant, dtype: torch.dtype, **fields: object) -> tuple[SparseStep, TrainConfig]:
    config = TrainConfig(variant, D_IN, D_SAE, n_tokens=10_000, k=K, **fields)  # type: ignore[arg-type]
    sae = build_sae(config.sae_config()).requires_grad_(False).to(dtype)
    generator = torch.Generator().manual_seed(3)
    for parameter in sae.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return SparseStep(sae, config), config


def slow_loss(
    step: SparseStep, config: TrainConfig, u: Tensor, dead: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss with dense latents, masks and autograd, written from its definition."""
    leaves = {name: value.clone().requires_grad_() for name, value in step.parameters.items()}
    pre = (u - leaves["b_dec"]) @ leaves["encoder"].T + leaves["b_enc"]
    if config.variant == "topk":
        smallest = pre.detach().sort(dim=1, descending=True).values[:, K - 1 : K]
    else:
        smallest = pre.detach().flatten().sort(descending=True).values[K * u.shape[0] - 1]
    z = torch.relu(pre) * (pre.detach() >= smallest)
    loss = torch.zeros((), dtype=u.dtype)
    for width in config.sae_config().options.get("prefixes", [D_SAE]):
        x_hat = z[:, :width] @ leaves["decoder"][:width] + leaves["b_dec"]
        loss = loss + (x_hat - u).square().sum() / u.shape[0]
    if dead.any():
        error = (u - x_hat).detach()
        columns = torch.nonzero(dead).squeeze(1)
        aux = torch.relu(pre[:, columns])
        k_aux = min(config.k_aux or D_IN // 2, len(columns))
        kth = aux.detach().sort(dim=1, descending=True).values[:, k_aux - 1 : k_aux]
        e_hat = (aux * (aux.detach() >= kth)) @ leaves["decoder"][columns]
        loss = loss + config.aux_weight * (e_hat - error).square().sum() / u.shape[0]
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    decoder = leaves["decoder"].detach()
    radial = (gradients["decoder"] * decoder).sum(1, keepdim=True)
    gradients["decoder"] = gradients["decoder"] - radial * decoder
    return loss.detach(), gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("n_dead", [0, 1, 9])
@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka"])
def test_gradients_equal_those_of_autograd(
    variant: Variant, n_dead: int, dtype: torch.dtype, tolerance: float
) -> None:
    step, config = drawn_step(variant, dtype)
    u = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5)).to(dtype)
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(7))[:n_dead]] = True
    _, expected = slow_loss(step, config, u, dead)
    step.gradients(u, dead, 0.0)
    for name, parameter in step.parameters.items():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=0.0, atol=tolerance * max(1.0, scale), msg=name
        )


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka"])
def test_a_second_step_is_not_disturbed_by_reused_buffers(variant: Variant) -> None:
    step, config = drawn_step(variant, torch.float64)
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        u = torch.randn(N, D_IN, generator=generator, dtype=torch.float64)
        step.gradients(u, dead, 0.0)
    _, expected = slow_loss(step, config, u, dead)
    for name, parameter in step.parameters.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka"])
def test_metrics_of_a_step_are_those_of_its_latents(variant: Variant) -> None:
    step, config = drawn_step(variant, torch.float64)
    u = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    result = step.gradients(u, torch.zeros(D_SAE, dtype=torch.bool), 0.0)
    pre = (u - step.b_dec) @ step.encoder.T + step.b_enc
    if variant == "topk":
        smallest = pre.sort(dim=1, descending=True).values[:, K - 1 : K]
    else:
        smallest = pre.flatten().sort(descending=True).values[K * N - 1]
    z = torch.relu(pre) * (pre >= smallest)
    torch.testing.assert_close(result.residual, z @ step.decoder + step.b_dec - u)
    expected, _ = slow_loss(step, config, u, torch.zeros(D_SAE, dtype=torch.bool))
    torch.testing.assert_close(result.loss, expected)
    assert torch.equal(result.fired, (z > 0).any(0))
    assert int(result.n_active) == int((z > 0).sum())


def test_negative_pre_activations_neither_fire_nor_learn() -> None:
    """With all biases far below zero TopK still selects k entries, all of them worth nothing."""
    step, _ = drawn_step("topk", torch.float64, aux_weight=0.0)
    step.b_enc.fill_(-100.0)
    u = torch.randn(N, D_IN, dtype=torch.float64)
    result = step.gradients(u, torch.zeros(D_SAE, dtype=torch.bool), 0.0)
    assert not result.fired.any()
    assert step.encoder.grad is not None
    assert (step.encoder.grad == 0).all()


def test_the_threshold_follows_the_smallest_kept_value() -> None:
    step, _config = drawn_step("batch_topk", torch.float64, theta_rate=0.1)
    generator = torch.Generator().manual_seed(5)
    theta = None
    for _ in range(4):
        u = torch.randn(N, D_IN, generator=generator, dtype=torch.float64)
        pre = (u - step.b_dec) @ step.encoder.T + step.b_enc
        smallest = float(pre.flatten().sort(descending=True).values[K * N - 1])
        theta = smallest if theta is None else 0.9 * theta + 0.1 * smallest
        step.gradients(u, torch.zeros(D_SAE, dtype=torch.bool), 0.0)
        assert float(step.state["theta"]) == pytest.approx(theta, rel=1e-12)


def test_decoder_rows_stay_on_the_unit_sphere() -> None:
    step, _ = drawn_step("topk", torch.float64)
    step.decoder.mul_(torch.rand(D_SAE, 1, dtype=torch.float64) + 0.5)
    step.after_update()
    torch.testing.assert_close(step.decoder.norm(dim=1), torch.ones(D_SAE, dtype=torch.float64))
