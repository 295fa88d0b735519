"""The units of a layer in the place of an SAE: what is read is what is there, and nothing is left over."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.sparse import SparseLatents


class Units(Sae):
    """`z = x`: latent j is unit j of the layer, of both signs and hardly ever 0; the reconstruction is exact.

    Edits, attributions and validations of single units are those of latents of this dictionary.
    """

    def __init__(self, config: SaeConfig) -> None:
        """Raises InvalidSaeConfig when there are not as many latents as units."""
        if config.d_in != config.d_sae:
            raise InvalidSaeConfig(f"{config.d_in} units are {config.d_in} latents, not {config.d_sae}")
        # Not as the others begin: one matrix is encoder and decoder, and of a wide layer it is large.
        nn.Module.__init__(self)
        self.config = config
        self.W_enc = self.W_dec = nn.Parameter(torch.eye(config.d_in), requires_grad=False)
        self.b_enc = self.b_dec = nn.Parameter(torch.zeros(config.d_in), requires_grad=False)
        self.register_buffer("norm_mean", torch.zeros(config.d_in))
        self.register_buffer("norm_scale", torch.ones(()))

    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """As they are."""
        return pre_acts

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """X itself."""
        return x

    def encode_sparse(self, x: Float[Tensor, "n_tokens d_in"], chunk: int = 4096) -> SparseLatents:
        """All units that are not 0, whatever their sign: as many as the layer has, for every token."""
        return SparseLatents.where(x, x != 0)

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Chosen units."""
        return x[..., latents]

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Z itself."""
        return z
