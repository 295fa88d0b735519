"""TopK SAE (Gao et al. 2024)."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.selection import top_k
from fulcrum.science.sae.sparse import SparseLatents


def checked_k(config: SaeConfig) -> int:
    """`options["k"]`, which must be an integer in 1 .. d_sae."""
    k = config.options.get("k")
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= config.d_sae:
        raise InvalidSaeConfig(
            f"option k={k!r} of a {config.variant} SAE must be an integer in 1 .. {config.d_sae}"
        )
    return k


class TopKSae(Sae):
    """Keeps the k largest pre-activations of a token, then relu, so fewer than k may be active."""

    pointwise: ClassVar[bool] = False

    def __init__(self, config: SaeConfig) -> None:
        super().__init__(config)
        self.k = checked_k(config)

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """The k largest, through relu: a negative latent would make a gain flip signs."""
        flat = pre_acts.reshape(-1, self.config.d_sae)
        values, latents = top_k(flat, self.k)
        return torch.zeros_like(flat).scatter(1, latents, torch.relu(values)).reshape(pre_acts.shape)

    def encode_sparse(self, x: Float[Tensor, "n_tokens d_in"], chunk: int = 4096) -> SparseLatents:
        """Straight from the k selected entries; no dense latents."""
        parts = [self._sparse(part) for part in torch.split(x, chunk)] or [self._sparse(x)]
        return SparseLatents.concat(parts)

    def _sparse(self, x: Float[Tensor, "n d_in"]) -> SparseLatents:
        values, latents = top_k(self.pre_acts(x), self.k)
        latents, order = latents.sort(dim=1)
        values = values.gather(1, order)
        active = values > 0
        offsets = torch.zeros(x.shape[0] + 1, dtype=torch.long, device=x.device)
        torch.cumsum(active.sum(1), 0, out=offsets[1:])
        return SparseLatents(offsets, latents[active], values[active], self.config.d_sae)
