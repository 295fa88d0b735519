"""Sparse latents: what an SAE natively returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SparseLatents:
    """Active latents (value > 0) of `n_tokens` tokens as CSR: token t owns `offsets[t]:offsets[t+1]`.

    Within a token, latents ascend. Units of a layer are active where they are not 0.
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
        return cls.where(z, z > 0)

    @classmethod
    def where(
        cls, z: Float[Tensor, "n_tokens d_sae"], kept: Bool[Tensor, "n_tokens d_sae"]
    ) -> "SparseLatents":
        """Keeps what is marked."""
        tokens, latents = torch.nonzero(kept, as_tuple=True)
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

    def maxima(self, tokens: Bool[Tensor, " n_tokens"] | None = None) -> Float[Tensor, " d_sae"]:
        """Largest value of each latent over `tokens` (default: all), 0 where it is silent; -inf over no token."""
        latents, values, n_tokens = self.latents, self.values, self.n_tokens
        if tokens is not None:
            mine = tokens[self.token_ids()]
            latents, values, n_tokens = latents[mine], values[mine], int(tokens.sum())
        largest = values.new_full((self.d_sae,), -torch.inf).scatter_reduce(0, latents, values, "amax")
        # A latent that is silent at a token is 0 there, which is more than a unit's negative value elsewhere.
        silent = torch.bincount(latents, minlength=self.d_sae) < n_tokens
        return torch.where(silent, largest.clamp_min(0), largest)

    def to_dense(self) -> Float[Tensor, "n_tokens d_sae"]:
        """Only for few tokens: the dense tensor of a data set does not fit."""
        z = self.values.new_zeros(self.n_tokens, self.d_sae)
        z[self.token_ids(), self.latents] = self.values
        return z


class HeldLatents:
    """Latents of images that were encoded before, to be read as dense columns of chosen images.

    `sparse` holds the tokens of image 0, then those of image 1, and so on, `n_tokens` each.
    """

    def __init__(self, sparse: SparseLatents, n_tokens: int) -> None:
        self.sparse, self.n_tokens = sparse, n_tokens

    def __call__(self, images: Int[Tensor, " n_images"], latents: Int[Tensor, " n"]) -> Tensor:
        """(n_images, n_tokens, n) values, 0 where a latent does not fire."""
        sparse, device = self.sparse, self.sparse.offsets.device
        images, latents = images.to(device), latents.to(device)
        n_images = images.shape[0]
        z = sparse.values.new_zeros(n_images * self.n_tokens, latents.shape[0])
        column = torch.full((sparse.d_sae,), -1, dtype=torch.long, device=device)
        column[latents] = torch.arange(latents.shape[0], device=device)
        if n_images == 1 and sparse.n_tokens == self.n_tokens:  # one image and all there is of it
            at = column[sparse.latents]
            entry = torch.nonzero(at >= 0).flatten()
            z[self._token(entry), at[entry]] = sparse.values[entry]
            return z[None]
        first = sparse.offsets[images * self.n_tokens]
        counts = sparse.offsets[(images + 1) * self.n_tokens] - first
        row = torch.repeat_interleave(torch.arange(n_images, device=device), counts)
        starts = torch.cumsum(counts, 0) - counts
        entry = torch.arange(row.shape[0], device=device) - starts[row] + first[row]
        at = column[sparse.latents[entry]]
        kept = at >= 0
        entry, row, at = entry[kept], row[kept], at[kept]
        token = self._token(entry) - images[row] * self.n_tokens
        z[row * self.n_tokens + token, at] = sparse.values[entry]
        return z.view(n_images, self.n_tokens, latents.shape[0])

    def _token(self, entry: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The last one whose offset is not beyond the entry."""
        token: Tensor = torch.searchsorted(self.sparse.offsets, entry, right=True) - 1
        return token
