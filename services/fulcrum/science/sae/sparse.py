"""Sparse latents: what an SAE natively returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SparseLatents:
    """Active latents (value > 0) of `n_tokens` tokens as CSR: token t owns `offsets[t]:offsets[t+1]`.

    Within a token, latents ascend.
    """

    offsets: Int[Tensor, " n_tokens_plus_1"]
    latents: Int[Tensor, " n_active"]
    values: Float[Tensor, " n_active"]
    d_sae: int

    @property
    def n_tokens(self) -> int:
        """Number of tokens, also those where nothing fires."""
        return self.offsets.shape[0] - 1

    @classmethod
    def from_dense(cls, z: Float[Tensor, "n_tokens d_sae"]) -> "SparseLatents":
        """Keeps what is above zero."""
        tokens, latents = torch.nonzero(z > 0, as_tuple=True)
        counts = torch.bincount(tokens, minlength=z.shape[0])
        offsets = torch.zeros(z.shape[0] + 1, dtype=torch.long, device=z.device)
        torch.cumsum(counts, 0, out=offsets[1:])
        return cls(offsets, latents, z[tokens, latents], z.shape[1])

    @classmethod
    def concat(cls, parts: "list[SparseLatents]") -> "SparseLatents":
        """Tokens of all parts, one after another."""
        offsets = [parts[0].offsets]
        for part in parts[1:]:
            offsets.append(part.offsets[1:] + offsets[-1][-1])
        return cls(
            torch.cat(offsets),
            torch.cat([p.latents for p in parts]),
            torch.cat([p.values for p in parts]),
            parts[0].d_sae,
        )

    def token_ids(self) -> Int[Tensor, " n_active"]:
        """Token of every active entry."""
        counts = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(torch.arange(self.n_tokens, device=self.offsets.device), counts)

    def to_dense(self) -> Float[Tensor, "n_tokens d_sae"]:
        """Only for few tokens: the dense tensor of a data set does not fit."""
        z = self.values.new_zeros(self.n_tokens, self.d_sae)
        z[self.token_ids(), self.latents] = self.values
        return z
