"""What every SAE variant shares; a variant supplies `activate`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.domain.models import Dictionary
from fulcrum.science.sae.sparse import SparseLatents


@dataclass(frozen=True)
class SaeConfig:
    """Shape and origin of an SAE; what a variant needs beyond it stands in `options` (k, prefixes)."""

    variant: Dictionary
    d_in: int
    d_sae: int
    hook_point: str = ""
    model_name: str = ""
    model_sha256: str = ""
    preprocess_sha256: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.d_in < 1 or self.d_sae < 1:
            raise InvalidSaeConfig(f"d_in={self.d_in} and d_sae={self.d_sae} must be >= 1")


class Sae(nn.Module, ABC):
    """`z = activate(N(x) ...)`, `x_hat = N^-1(z W_dec + b_dec)` with `N(x) = norm_scale * (x - norm_mean)`.

    All public methods take and return activations in the model's own units; the normalisation is inside.
    """

    # Whether z_j depends on row j of the encoder alone, so that single latents can be computed by themselves.
    pointwise: ClassVar[bool] = True

    W_enc: Tensor  # (d_in, d_sae)
    b_enc: Tensor  # (d_sae,)
    W_dec: Tensor  # (d_sae, d_in)
    b_dec: Tensor  # (d_in,)
    norm_mean: Tensor  # (d_in,)
    norm_scale: Tensor  # ()

    def __init__(self, config: SaeConfig) -> None:
        super().__init__()
        self.config = config
        self.W_enc = nn.Parameter(torch.zeros(config.d_in, config.d_sae))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, config.d_in))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        self.register_buffer("norm_mean", torch.zeros(config.d_in))
        self.register_buffer("norm_scale", torch.ones(()))

    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Model units to SAE units."""
        return (x - self.norm_mean) * self.norm_scale

    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """SAE units to model units."""
        return x / self.norm_scale + self.norm_mean

    def pre_acts(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Encoder output before the activation; `b_dec` is subtracted first."""
        return (self.normalise(x) - self.b_dec) @ self.W_enc + self.b_enc

    @abstractmethod
    def activate(self, pre_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Latents at inference, never negative (SCIENCE.md 8, trap 12) but where they are a layer's units."""

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Dense latents; for few tokens. Over data sets use `encode_sparse`."""
        return self.activate(self.pre_acts(x))

    def encode_sparse(self, x: Float[Tensor, "n_tokens d_in"], chunk: int = 4096) -> SparseLatents:
        """Sparse latents, never holding more than `chunk` dense tokens."""
        return SparseLatents.concat(
            [SparseLatents.from_dense(self.encode(part)) for part in torch.split(x, chunk)]
            or [SparseLatents.from_dense(self.encode(x))]
        )

    def encode_selected(self, x: Float[Tensor, "*batch d_in"], latents: Tensor) -> Float[Tensor, "*batch n"]:
        """Chosen latents only; costs n instead of d_sae where the variant is pointwise."""
        return self.encode(x)[..., latents]

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """`x_hat` in model units."""
        return self.denormalise(z @ self.W_dec + self.b_dec)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """`x_hat` in model units."""
        return self.decode(self.encode(x))

    def directions(self, latents: Tensor) -> Float[Tensor, "n d_in"]:
        """What one unit of a latent adds to x, in model units: `W_dec[j] / norm_scale`."""
        return self.W_dec[latents] / self.norm_scale
