"""The images on which each latent is strongest, streamed over a data set."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.codes import SparseCodes

_PENDING_LIMIT: Final = 1 << 20


@dataclass(frozen=True)
class TopImages:
    """Up to n images per latent, strongest first, equal ones by image number.

    Only images in which the latent fires are listed: row j has `counts[j]` of them, then -1 (and score 0).
    """

    images: Int[np.ndarray, "d_sae n"]
    scores: Float[np.ndarray, "d_sae n"]
    counts: Int[np.ndarray, " d_sae"]

    def of(self, latent: int) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Image numbers and scores of one latent, without the filling."""
        if not 0 <= latent < len(self.counts):
            raise LatentOutOfRange(f"latent {latent} does not lie in 0 .. {len(self.counts) - 1}")
        k = int(self.counts[latent])
        return self.images[latent, :k], self.scores[latent, :k]


class StreamingTopImages:
    """Accumulates `TopImages` from image-level codes.

    By maximum: pass `codes.per_image(tokens, "max")`; by mean activation: `codes.per_image(tokens, "mean")`.
    The result does not depend on the order of images, batches or shards.
    """

    def __init__(self, d_sae: int, n: int) -> None:
        if d_sae < 1 or n < 1:
            raise InvalidInput(f"d_sae={d_sae} and n={n} must be >= 1")
        self.d_sae, self.n = d_sae, n
        self._threshold = np.zeros(d_sae, dtype=np.float32)  # score of the n-th image so far
        # (latents, scores, images); the first of the list is sorted and cut to n per latent
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [
            (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64))
        ]

    def update(self, image_numbers: Int[np.ndarray, " n_images"], codes: SparseCodes) -> None:
        """Adds images; row i of `codes` is image `image_numbers[i]` of the data set.

        Raises InvalidInput for negative or doubled numbers, or another number of rows.
        """
        numbers = np.asarray(image_numbers, dtype=np.int64)
        if numbers.shape != (codes.n_rows,):
            raise InvalidInput(f"image_numbers of shape {numbers.shape} do not number {codes.n_rows} images")
        if codes.d_sae != self.d_sae:
            raise InvalidInput(f"the batch has d_sae={codes.d_sae}, expected {self.d_sae}")
        if len(numbers) and numbers.min() < 0:
            raise InvalidInput(f"image number {numbers.min()} is negative")
        if len(np.unique(numbers)) != len(numbers):
            raise InvalidInput("an image number stands twice in one batch")
        self._add(codes.latents, codes.values, numbers[codes.row_ids()])

    def merge(self, other: "StreamingTopImages") -> None:
        """Adds what another shard saw. Raises InvalidInput when shards differ in shape or share an image."""
        if (self.d_sae, self.n) != (other.d_sae, other.n):
            raise InvalidInput(
                f"shards differ in (d_sae, n): {(self.d_sae, self.n)} and {(other.d_sae, other.n)}"
            )
        self._add(*other._compact())

    def result(self) -> TopImages:
        """Top images of all that was added so far."""
        latents, scores, images = self._compact()
        counts = np.bincount(latents, minlength=self.d_sae)
        places = _rank_in_group(latents)
        top = np.full((self.d_sae, self.n), -1, dtype=np.int64)
        top_scores = np.zeros((self.d_sae, self.n), dtype=np.float32)
        top[latents, places], top_scores[latents, places] = images, scores
        return TopImages(top, top_scores, counts)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state as arrays, for the file of a shard."""
        latents, scores, images = self._compact()
        return {
            "shape": np.array([self.d_sae, self.n]),
            "latents": latents,
            "scores": scores,
            "images": images,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "StreamingTopImages":
        """Inverse of `to_arrays`."""
        top = cls(*(int(n) for n in arrays["shape"]))
        top._add(arrays["latents"], arrays["scores"], arrays["images"])
        return top

    def _add(self, latents: np.ndarray, scores: np.ndarray, images: np.ndarray) -> None:
        # An equal score stays in: a lower image number may still win the tie.
        keep = scores >= self._threshold[latents]
        self._entries.append((latents[keep], scores[keep], images[keep]))
        if sum(len(e[0]) for e in self._entries[1:]) > max(_PENDING_LIMIT, len(self._entries[0][0])):
            self._compact()

    def _compact(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(self._entries) == 1:
            return self._entries[0]
        latents, scores, images = (np.concatenate(arrays) for arrays in zip(*self._entries, strict=True))
        order = np.lexsort((images, -scores, latents))
        latents, scores, images = latents[order], scores[order], images[order]
        doubled = (np.diff(latents) == 0) & (np.diff(images) == 0)
        if doubled.any():
            raise InvalidInput(
                f"image {images[1:][doubled][0]} was added twice (overlapping batches or shards)"
            )
        places = _rank_in_group(latents)
        keep = places < self.n
        last = places == self.n - 1
        self._threshold[latents[last]] = scores[last]
        self._entries = [(latents[keep], scores[keep], images[keep])]
        return self._entries[0]


def _rank_in_group(sorted_groups: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... within each run of equal values."""
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    lengths = np.diff(np.append(starts, len(sorted_groups)))
    return np.arange(len(sorted_groups)) - np.repeat(starts, lengths)
