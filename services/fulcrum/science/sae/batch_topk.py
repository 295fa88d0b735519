"""BatchTopK SAE (Bussmann et al. 2024)."""

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.topk import checked_k


class BatchTopKSae(Sae):
    """Trained by keeping the n k largest of a batch of n tokens; at inference `z = pre * 1[pre > theta]`.

    `theta` is the running mean of the smallest kept value. It is part of the weights: an SAE without it would
    answer differently for every batch (SCIENCE.md 8, trap 8).
    """

    theta: Tensor  # ()

    def __init__(self, config: SaeConfig) -> None:
        super().__init__(config)
        self.k = checked_k(config)
        self.register_buffer("theta", torch.zeros(()))

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Zero at or below theta, unchanged above it; independent of the other tokens in the batch."""
        return torch.relu(pre_acts) * (pre_acts > self.theta)

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Columns of the encoder for these latents only."""
        pre = (self.normalise(x) - self.b_dec) @ self.W_enc[:, latents] + self.b_enc[latents]
        return torch.relu(pre) * (pre > self.theta)
