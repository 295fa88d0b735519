"""Losses of the variants that are trained through autograd; decoder rows have unit norm.

All are means over tokens of sums over dimensions, in SAE units, where the mean `|u|` is sqrt(d_in). Sparsity
weights are relative to that scale, so that one weight means the same at every width.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def relu_loss(
    weights: Mapping[str, Tensor], u: Float[Tensor, "n d_in"], l1_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss `|u - x_hat|^2 + l1_weight sqrt(d_in) sum_j z_j |d_j|` (Bricken et al. 2023), residual, z."""
    pre = (u - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    z = torch.relu(pre)
    residual = z @ weights["W_dec"] + weights["b_dec"] - u
    penalty = (z * weights["W_dec"].norm(dim=1)).sum(1)
    loss = residual.square().sum(1) + l1_weight * math.sqrt(u.shape[1]) * penalty
    return loss.mean(), residual, z


def jumprelu_loss(
    weights: Mapping[str, Tensor], u: Float[Tensor, "n d_in"], l0_weight: float, bandwidth: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss `|u - x_hat|^2 + l0_weight d_in |z|_0` (Rajamanoharan et al. 2024), residual, latents.

    The thresholds learn through a rectangle kernel of width `bandwidth`, as in the paper.
    """
    pre = (u - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    z = _JumpRelu.apply(pre, weights["threshold"], bandwidth)
    l0 = _Step.apply(pre, weights["threshold"], bandwidth).sum(1)
    residual = z @ weights["W_dec"] + weights["b_dec"] - u
    loss = residual.square().sum(1) + l0_weight * u.shape[1] * l0
    return loss.mean(), residual, z


def gated_loss(
    weights: Mapping[str, Tensor], u: Float[Tensor, "n d_in"], l1_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, residual and latents; the loss has a third term, the gate's own frozen-decoder reconstruction.

    `|u - x_hat(z)|^2 + l1_weight sqrt(d_in) sum_j relu(pre_j) + |u - x_hat_frozen(relu(pre))|^2`
    (Rajamanoharan et al. 2024, Gated SAEs). Without the third term the gate would learn from sparsity alone.
    """
    product = (u - weights["b_dec"]) @ weights["W_enc"]
    gate = product + weights["b_enc"]
    magnitude = product * weights["r_mag"].exp() + weights["b_mag"]
    z = torch.relu(magnitude) * (gate > 0)
    residual = z @ weights["W_dec"] + weights["b_dec"] - u
    opened = torch.relu(gate)
    frozen = opened @ weights["W_dec"].detach() + weights["b_dec"].detach() - u
    loss = residual.square().sum(1) + frozen.square().sum(1)
    return (loss + l1_weight * math.sqrt(u.shape[1]) * opened.sum(1)).mean(), residual, z


class _JumpRelu(torch.autograd.Function):
    """`pre 1[pre > threshold]`, with `-(threshold / eps) K((pre - threshold) / eps)` for the threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        kernel = _rectangle(pre, threshold, ctx.bandwidth)
        grad_threshold = -(threshold / ctx.bandwidth) * (kernel * grads[0]).sum(0)
        return grads[0] * (pre > threshold), grad_threshold, None


class _Step(torch.autograd.Function):
    """`1[pre > threshold]`; the threshold's gradient is `-(1 / eps) K((pre - threshold) / eps)`."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        kernel = _rectangle(pre, threshold, ctx.bandwidth)
        return None, -(kernel * grads[0]).sum(0) / ctx.bandwidth, None


def _rectangle(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return (pre - threshold).abs() < bandwidth / 2
