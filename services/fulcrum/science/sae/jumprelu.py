"""JumpReLU SAE (Rajamanoharan et al. 2024, "Jumping Ahead")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.science.sae.base import Sae, SaeConfig


class JumpReluSae(Sae):
    """`z_j = relu(pre_j) * 1[pre_j > threshold_j]` with one learned threshold per latent."""

    threshold: Tensor  # (d_sae,)

    def __init__(self, config: SaeConfig) -> None:
        super().__init__(config)
        self.threshold = nn.Parameter(torch.zeros(config.d_sae))

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Zero at or below the threshold, unchanged above it."""
        return torch.relu(pre_acts) * (pre_acts > self.threshold)

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Columns of the encoder for these latents only."""
        pre = (self.normalise(x) - self.b_dec) @ self.W_enc[:, latents] + self.b_enc[latents]
        return torch.relu(pre) * (pre > self.threshold[latents])
