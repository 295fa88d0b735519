"""Gated SAE (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.science.sae.base import Sae, SaeConfig


class GatedSae(Sae):
    """`z = 1[pre > 0] * relu(pre_mag)`; both paths share `W_enc`.

    `pre = (N(x) - b_dec) W_enc + b_enc` is the gate (the paper's b_gate is `b_enc`), and
    `pre_mag = (N(x) - b_dec) W_enc * exp(r_mag) + b_mag`.
    """

    r_mag: Tensor  # (d_sae,)
    b_mag: Tensor  # (d_sae,)

    def __init__(self, config: SaeConfig) -> None:
        super().__init__(config)
        self.r_mag = nn.Parameter(torch.zeros(config.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(config.d_sae))

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """From the gate's pre-activations, of which the magnitudes are an affine function per latent."""
        magnitude = (pre_acts - self.b_enc) * self.r_mag.exp() + self.b_mag
        return torch.relu(magnitude) * (pre_acts > 0)

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Columns of the encoder for these latents only."""
        product = (self.normalise(x) - self.b_dec) @ self.W_enc[:, latents]
        magnitude = product * self.r_mag[latents].exp() + self.b_mag[latents]
        return torch.relu(magnitude) * (product + self.b_enc[latents] > 0)
