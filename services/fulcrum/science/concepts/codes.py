"""Sparse latents of tokens or images in numpy: what the statistics of concepts read."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.sae.sparse import SparseLatents


@dataclass(frozen=True)
class SparseCodes:
    """Active latents of `n_rows` tokens or images as CSR: row r owns `offsets[r]:offsets[r+1]`.

    Values become float32, the precision in which an index stores them. Within a row latents strictly ascend
    and every value is finite and above zero. Raises InvalidInput or LatentOutOfRange otherwise: a negative
    value is a TopK without relu (SCIENCE.md 8, trap 12), and a latent twice in a row would be counted twice.
    """

    offsets: Int[np.ndarray, " n_rows_plus_1"]
    latents: Int[np.ndarray, " n_active"]
    values: Float[np.ndarray, " n_active"]
    d_sae: int

    def __post_init__(self) -> None:
        offsets, latents = (np.asarray(a, dtype=np.int64) for a in (self.offsets, self.latents))
        with np.errstate(over="ignore"):  # what overflows becomes inf and is refused below
            values = np.asarray(self.values, dtype=np.float32)
        for name, array in (("offsets", offsets), ("latents", latents), ("values", values)):
            if array.ndim != 1:
                raise InvalidInput(f"{name} must have one dimension, got shape {array.shape}")
            object.__setattr__(self, name, array)
        if self.d_sae < 1:
            raise InvalidInput(f"d_sae={self.d_sae} must be >= 1")
        if len(latents) != len(values):
            raise InvalidInput(f"{len(latents)} latents but {len(values)} values")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(latents) or (np.diff(offsets) < 0).any():
            raise InvalidInput(f"offsets must ascend from 0 to the {len(latents)} active entries")
        if len(latents) and not (latents.min() >= 0 and latents.max() < self.d_sae):
            raise LatentOutOfRange(
                f"latents {latents.min()} .. {latents.max()} do not lie in 0 .. {self.d_sae - 1}"
            )
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InvalidInput("values of active latents must be finite and above zero (in float32)")
        if (np.diff(self.row_ids() * self.d_sae + latents) <= 0).any():
            raise InvalidInput("latents must strictly ascend within a row")

    @classmethod
    def from_sparse(cls, z: SparseLatents) -> "SparseCodes":
        """The same latents on the host; one row per token."""
        offsets, latents = (a.detach().to("cpu", torch.int64).numpy() for a in (z.offsets, z.latents))
        return cls(offsets, latents, z.values.detach().to("cpu", torch.float32).numpy(), z.d_sae)

    @classmethod
    def from_dense(cls, z: Float[np.ndarray, "n_rows d_sae"]) -> "SparseCodes":
        """Keeps what is not zero, so that a negative value is refused rather than dropped."""
        rows, latents = np.nonzero(z)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=z.shape[0]))])
        return cls(offsets, latents, z[rows, latents], z.shape[1])

    @property
    def n_rows(self) -> int:
        """Number of rows, also those where nothing fires."""
        return len(self.offsets) - 1

    def row_ids(self) -> Int[np.ndarray, " n_active"]:
        """Row of every active entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def to_dense(self) -> Float[np.ndarray, "n_rows d_sae"]:
        """Only for few rows: the dense array of a data set does not fit."""
        z = np.zeros((self.n_rows, self.d_sae), dtype=np.float32)
        z[self.row_ids(), self.latents] = self.values
        return z

    def per_image(self, tokens_per_image: int, how: Literal["max", "mean"] = "max") -> "SparseCodes":
        """Tokens to images: row i gathers the rows `i*tokens_per_image ... (i+1)*tokens_per_image - 1`.

        `max` is over tokens; `mean` divides by all tokens of the image, those where the latent is silent
        included. Raises InvalidInput when the rows are not whole images.
        """
        if how not in ("max", "mean"):
            raise InvalidInput(f"how={how!r} must be 'max' or 'mean'")
        n_images = self.n_images(tokens_per_image)
        keys = self.row_ids() // tokens_per_image * self.d_sae + self.latents
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], self.values[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        if how == "max":
            pooled = np.maximum.reduceat(values, starts) if len(starts) else values
        else:
            image_of_entry = np.cumsum(np.diff(keys, prepend=-1) != 0) - 1
            pooled = np.bincount(image_of_entry, weights=values, minlength=len(starts)) / tokens_per_image
        images, latents = np.divmod(keys[starts], self.d_sae)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(images, minlength=n_images))])
        return SparseCodes(offsets, latents, pooled, self.d_sae)

    def n_images(self, tokens_per_image: int) -> int:
        """Number of whole images in the rows. Raises InvalidInput when the rows are not whole images."""
        if tokens_per_image < 1 or self.n_rows % tokens_per_image:
            raise InvalidInput(f"{self.n_rows} rows are not whole images of {tokens_per_image} tokens")
        return self.n_rows // tokens_per_image
