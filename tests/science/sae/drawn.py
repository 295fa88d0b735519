"""SAEs with drawn weights and a sparse mixture of directions, for the tests of this folder."""

from typing import Any

import torch
from torch import Tensor

from fulcrum.domain.models import Variant
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.variants import build_sae

OPTIONS: dict[Variant, dict[str, Any]] = {
    "relu": {},
    "topk": {"k": 3},
    "batch_topk": {"k": 3},
    "jumprelu": {},
    "gated": {},
    "matryoshka": {"k": 3, "prefixes": [4, 9, 24]},
}


def drawn_sae(variant: Variant, d_in: int = 8, d_sae: int = 24, seed: int = 0, **fields: Any) -> Sae:
    """All parameters random and different from their defaults, normalisation included; float32."""
    generator = torch.Generator().manual_seed(seed)
    options = dict(OPTIONS[variant])
    if variant == "matryoshka":
        options["prefixes"] = sorted({max(1, d_sae // 6), max(1, d_sae // 3), d_sae})
    sae = build_sae(SaeConfig(variant, d_in, d_sae, options=options, **fields)).requires_grad_(False)
    for parameter in sae.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    sae.norm_mean.copy_(torch.randn(d_in, generator=generator))
    sae.norm_scale.fill_(0.7)
    if variant == "jumprelu":
        sae.get_parameter("threshold").abs_()
    if variant in ("batch_topk", "matryoshka"):
        sae.get_buffer("theta").fill_(0.9)
    return sae


def tokens(n: int, d_in: int = 8, seed: int = 1) -> Tensor:
    """Activations whose mean is far from zero."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 + 1.5 * torch.randn(n, d_in, generator=generator)


def mixture(n: int, d_in: int = 16, n_directions: int = 32, n_active: float = 3, seed: int = 0) -> Tensor:
    """Sparse non-negative mixtures of unit directions, plus a mean and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_directions, d_in, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    fires = torch.rand(n, n_directions, generator=generator) < n_active / n_directions
    amounts = fires * (1 + torch.rand(n, n_directions, generator=generator))
    return amounts @ directions + 0.02 * torch.randn(n, d_in, generator=generator) + 3.0
