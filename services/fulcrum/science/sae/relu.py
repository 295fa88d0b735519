"""ReLU SAE with an L1 penalty (Bricken et al. 2023)."""

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.science.sae.base import Sae


class ReluSae(Sae):
    """`z = relu((N(x) - b_dec) W_enc + b_enc)`."""

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Zero below zero, unchanged above it."""
        return torch.relu(pre_acts)

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Columns of the encoder for these latents only."""
        pre = (self.normalise(x) - self.b_dec) @ self.W_enc[:, latents] + self.b_enc[latents]
        return torch.relu(pre)
