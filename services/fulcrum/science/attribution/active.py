"""The active latents of a batch of images: all that attribution ever looks at."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.domain.errors import EditCannotReachOutput
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.vision.split import SplitTower, reaching_tokens


@dataclass(frozen=True)
class ActiveLatents:
    """One entry for every (image, token, latent) with z not 0 among the attributed tokens, in that order."""

    rows: Int[Tensor, " n_active"]
    tokens: Int[Tensor, " n_active"]
    latents: Int[Tensor, " n_active"]
    values: Float[Tensor, " n_active"]
    n_images: int
    n_tokens: int
    d_sae: int

    @classmethod
    def of(
        cls,
        tower: SplitTower,
        sae: Sae,
        x: Float[Tensor, "n_images n_tokens d_in"],
        tokens: Bool[Tensor, " n_tokens"] | None = None,
        sparse: SparseLatents | None = None,
    ) -> "ActiveLatents":
        """Encodes `x`, or takes `sparse` (of all its tokens, image by image) where that is known already.

        Only tokens of `tokens` (default: all) which reach the output are kept: the others can carry nothing,
        and a latent that fires only there would be listed with a score of 0 (SCIENCE.md 8, trap 4).
        Raises EditCannotReachOutput when none is left.
        """
        n_images, n_tokens, _ = x.shape
        kept = reaching_tokens(tower, x.device)
        if tokens is not None:
            kept = kept & tokens.to(x.device)
        if not bool(kept.any()):
            raise EditCannotReachOutput(
                f"none of the attributed tokens at {tower.hook_point} reaches the output "
                f"(only {tower.reaches_output} do): every score would be 0"
            )
        if sparse is None:
            with torch.no_grad():
                sparse = sae.encode_sparse(x.detach().to(sae.W_dec.dtype).flatten(0, 1))
        flat = sparse.token_ids()
        token = flat % n_tokens
        chosen = kept[token]
        return cls(
            (flat // n_tokens)[chosen],
            token[chosen],
            sparse.latents[chosen],
            sparse.values[chosen].detach(),
            n_images,
            n_tokens,
            sae.config.d_sae,
        )

    def of_image(self, row: int) -> "ActiveLatents":
        """The entries of one image, as a batch of one."""
        mine = self.entries_of(row)
        return ActiveLatents(
            torch.zeros_like(self.rows[mine]),
            self.tokens[mine],
            self.latents[mine],
            self.values[mine],
            1,
            self.n_tokens,
            self.d_sae,
        )

    def only(self, latents: Int[Tensor, " n"]) -> "ActiveLatents":
        """The entries of these latents."""
        mine = torch.isin(self.latents, latents.to(self.latents))
        return ActiveLatents(
            self.rows[mine],
            self.tokens[mine],
            self.latents[mine],
            self.values[mine],
            self.n_images,
            self.n_tokens,
            self.d_sae,
        )

    def entries_of(self, row: int) -> slice:
        """Where the entries of an image stand."""
        bounds = torch.searchsorted(self.rows, torch.tensor([row, row + 1], device=self.rows.device))
        return slice(int(bounds[0]), int(bounds[1]))

    def pairs(self) -> tuple[Int[Tensor, " n_pairs"], Int[Tensor, " n_pairs"], Int[Tensor, " n_active"]]:
        """Distinct (image, latent) in ascending order as `rows, latents`, and the pair of every entry."""
        keys, of_entry = torch.unique(self.rows * self.d_sae + self.latents, return_inverse=True)
        return keys // self.d_sae, keys % self.d_sae, of_entry
