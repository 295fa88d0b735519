"""What every attribution method returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulcrum.science.attribution.active import ActiveLatents


@dataclass(frozen=True)
class Scores:
    """Scores of the active latents of a batch of images, in the target's units.

    They do not sum to the target, so they are no shares of it (SCIENCE.md 8, trap 13). Latents which are
    active nowhere among the attributed tokens have a score of 0 and are not listed.
    """

    rows: Int[Tensor, " n_pairs"]  # image
    latents: Int[Tensor, " n_pairs"]  # ascending within an image
    values: Float[Tensor, " n_pairs"]  # float64
    target_values: Float[Tensor, " n_images"]
    active: ActiveLatents
    entry_scores: Float[Tensor, " n_active"] | None  # per token, parallel to `active`; None for `ablation`
    completeness_residuals: Float[Tensor, " n_images"] | None = None  # integrated_gradients

    @classmethod
    def from_entries(
        cls,
        active: ActiveLatents,
        entry_scores: Float[Tensor, " n_active"],
        target_values: Float[Tensor, " n_images"],
        completeness_residuals: Float[Tensor, " n_images"] | None = None,
    ) -> "Scores":
        """Sums the tokens of each latent in float64."""
        rows, latents, pair = active.pairs()
        values = torch.zeros(len(rows), dtype=torch.float64, device=entry_scores.device)
        # Not index_add_: on CUDA it adds in whatever order threads arrive, and the last bits differ each time.
        values.index_put_((pair,), entry_scores.double(), accumulate=True)
        return cls(rows, latents, values, target_values, active, entry_scores, completeness_residuals)

    def of_image(self, row: int = 0) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """`latents, values` of an image, largest |value| first and the lower latent first among equals."""
        bounds = torch.searchsorted(self.rows, torch.tensor([row, row + 1], device=self.rows.device))
        mine = slice(int(bounds[0]), int(bounds[1]))
        order = torch.sort(self.values[mine].abs(), descending=True, stable=True).indices
        return self.latents[mine][order], self.values[mine][order]

    def per_token(self, latents: Int[Tensor, " n"], row: int = 0) -> Float[Tensor, "n n_tokens"]:
        """Score of chosen latents at every token of an image; their sums over tokens are `values`.

        Raises ValueError for `ablation`, whose tokens are measured by `ablation.ablate_tokens`.
        """
        if self.entry_scores is None:
            raise ValueError("ablation takes all tokens at once: ablate_tokens measures them one by one")
        mine = self.active.entries_of(row)
        latents = latents.to(self.latents)
        per_token = self.entry_scores.new_zeros(len(latents), self.active.n_tokens)
        at, entry = torch.nonzero(latents[:, None] == self.active.latents[mine][None], as_tuple=True)
        per_token[at, self.active.tokens[mine][entry]] = self.entry_scores[mine][entry]
        return per_token
