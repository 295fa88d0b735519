"""How often, how strongly and where each latent fires, streamed over a data set.

Everything that is accumulated is an integer or a maximum, so shards merge to the bits of one pass in any
order. Values fall into a log-linear histogram: a bin is what the sign, exponent and first six fraction bits
of a float32 share, 64 bins to a doubling. The sum of the remaining fraction bits is kept per bin, so sums
lose nothing either.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.codes import SparseCodes

BINS_PER_OCTAVE: Final = 64
QUANTILE_RELATIVE_ERROR: Final = 1 / 128  # half a bin: a bin is at most 1/64 of its lower edge wide
_LOW_BITS: Final = 17  # of the 23 fraction bits of a float32, those below the six that choose the bin
_BIN_BITS: Final = 14  # 8 exponent bits and 6 fraction bits
_PENDING_LIMIT: Final = 1 << 20


@dataclass(frozen=True)
class Histogram:
    """Counts of the active values between consecutive edges; bin i holds `edges[i] <= z < edges[i+1]`."""

    edges: Float[np.ndarray, " n_bins_plus_1"]
    counts: Int[np.ndarray, " n_bins"]


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of every latent over `n_images` images of `n_tokens` tokens in all.

    For a latent that never fired (`fired` is False) max, sum, means, shares and quantiles are 0: it has no
    values.
    """

    n_images: int
    n_tokens: int
    n_images_active: Int[np.ndarray, " d_sae"]
    n_tokens_active: Int[np.ndarray, " d_sae"]
    n_cls_active: Int[np.ndarray, " d_sae"]  # 0 for towers without CLS
    max: Float[np.ndarray, " d_sae"]
    sum: Float[np.ndarray, " d_sae"]
    bin_keys: Int[np.ndarray, " n_bins"]  # latent << 14 | bin, ascending
    bin_counts: Int[np.ndarray, " n_bins"]

    @property
    def fired(self) -> Bool[np.ndarray, " d_sae"]:
        """Whether the latent fired at all; False is a dead latent on this data."""
        return self.n_tokens_active > 0

    @property
    def firing_rate_images(self) -> Float[np.ndarray, " d_sae"]:
        """Share of images in which some token fires, 0 .. 1."""
        rate: FloatArray = self.n_images_active / self.n_images
        return rate

    @property
    def firing_rate_tokens(self) -> Float[np.ndarray, " d_sae"]:
        """Share of tokens that fire, 0 .. 1."""
        rate: FloatArray = self.n_tokens_active / self.n_tokens
        return rate

    @property
    def mean_when_active(self) -> Float[np.ndarray, " d_sae"]:
        """Mean over the tokens where the latent fires."""
        mean: FloatArray = self.sum / np.maximum(self.n_tokens_active, 1)
        return mean

    @property
    def mean(self) -> Float[np.ndarray, " d_sae"]:
        """Mean over all tokens: what `mean_ablate` sets a latent to."""
        mean: FloatArray = self.sum / self.n_tokens
        return mean

    @property
    def cls_share(self) -> Float[np.ndarray, " d_sae"]:
        """Share of a latent's active tokens that are CLS; `patch_share` is the rest."""
        share: FloatArray = self.n_cls_active / np.maximum(self.n_tokens_active, 1)
        return share

    @property
    def patch_share(self) -> Float[np.ndarray, " d_sae"]:
        """Share of a latent's active tokens that are patches."""
        n_patches_active = self.n_tokens_active - self.n_cls_active
        share: FloatArray = n_patches_active / np.maximum(self.n_tokens_active, 1)
        return share

    def quantile(self, q: float) -> Float[np.ndarray, " d_sae"]:
        """Nearest-rank quantile of the active token values, to a relative error of QUANTILE_RELATIVE_ERROR.

        The estimate of "the smallest value with at least a share q of the values at or below it" (the
        inverted distribution function). Raises InvalidInput for q outside 0 .. 1.
        """
        if not 0 <= q <= 1:
            raise InvalidInput(f"quantile q={q} must lie in 0 .. 1")
        # 0.07 * 100 is 7.000000000000001 in floats, and its ceil would be the next value.
        rank = np.maximum(1, np.ceil(q * self.n_tokens_active - 1e-9)).astype(np.int64)
        before = np.cumsum(self.n_tokens_active) - self.n_tokens_active
        estimate = np.zeros(len(self.max))
        if len(self.bin_keys):
            found = np.searchsorted(np.cumsum(self.bin_counts), (before + rank)[self.fired])
            bins = self.bin_keys[found] & ((1 << _BIN_BITS) - 1)
            middle = (_lower_edge(bins) + _lower_edge(bins + 1)) / 2
            estimate[self.fired] = np.minimum(middle, self.max[self.fired])
        return estimate

    def histogram(self, latent: int, bins_per_octave: int = 4) -> Histogram:
        """Histogram of one latent's active token values, with 1, 2, 4 ... 64 bins to a doubling.

        Bins run from the smallest to the largest value that occurred; a latent that never fired has none.
        """
        if bins_per_octave not in (1, 2, 4, 8, 16, 32, 64):
            raise InvalidInput(f"bins_per_octave={bins_per_octave} must be a power of two in 1 .. 64")
        _check_latent(latent, len(self.max))
        start, end = np.searchsorted(self.bin_keys, [latent << _BIN_BITS, (latent + 1) << _BIN_BITS])
        if start == end:
            return Histogram(np.zeros(1), np.zeros(0, dtype=np.int64))
        width = BINS_PER_OCTAVE // bins_per_octave
        bins = (self.bin_keys[start:end] & ((1 << _BIN_BITS) - 1)) // width
        counts = np.bincount(bins - bins[0], weights=self.bin_counts[start:end]).astype(np.int64)
        return Histogram(_lower_edge(np.arange(bins[0], bins[-1] + 2) * width), counts)


class StreamingStatistics:
    """Accumulates `LatentStatistics` from batches of whole images; memory grows with occupied bins only.

    For statistics of image-level codes pass `codes.per_image(...)` and `tokens_per_image=1`.
    """

    def __init__(self, d_sae: int, tokens_per_image: int, has_cls: bool) -> None:
        if d_sae < 1 or tokens_per_image < 1:
            raise InvalidInput(f"d_sae={d_sae} and tokens_per_image={tokens_per_image} must be >= 1")
        self.d_sae, self.tokens_per_image, self.has_cls = d_sae, tokens_per_image, has_cls
        self._n_images = 0
        self._n_images_active = np.zeros(d_sae, dtype=np.int64)
        self._n_cls_active = np.zeros(d_sae, dtype=np.int64)
        self._max = np.zeros(d_sae, dtype=np.float32)
        # (keys, counts, sums of low fraction bits) not yet merged into the first of the list
        self._bins: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [
            (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        ]

    def update(self, codes: SparseCodes) -> None:
        """Adds a batch; row 0 of every image is CLS where `has_cls`. Raises InvalidInput for broken
        images.
        """
        _check_width(codes.d_sae, self.d_sae)
        images = codes.per_image(self.tokens_per_image)
        self._n_images += images.n_rows
        self._n_images_active += np.bincount(images.latents, minlength=self.d_sae)
        np.maximum.at(self._max, images.latents, images.values)
        if self.has_cls:
            cls = codes.row_ids() % self.tokens_per_image == 0
            self._n_cls_active += np.bincount(codes.latents[cls], minlength=self.d_sae)
        bits = codes.values.view(np.int32).astype(np.int64)
        keys = codes.latents << _BIN_BITS | bits >> _LOW_BITS
        self._add(keys, np.ones(len(keys), dtype=np.int64), bits & ((1 << _LOW_BITS) - 1))

    def merge(self, other: "StreamingStatistics") -> None:
        """Adds what another shard saw. Raises InvalidInput when the shards read different things."""
        mine = (self.d_sae, self.tokens_per_image, self.has_cls)
        theirs = (other.d_sae, other.tokens_per_image, other.has_cls)
        if mine != theirs:
            raise InvalidInput(f"shards differ in (d_sae, tokens_per_image, has_cls): {mine} and {theirs}")
        self._n_images += other._n_images
        self._n_images_active += other._n_images_active
        self._n_cls_active += other._n_cls_active
        self._max = np.maximum(self._max, other._max)
        self._add(*other._compact())

    def result(self) -> LatentStatistics:
        """Statistics of all that was added so far. Raises InvalidInput before the first image."""
        if self._n_images == 0:
            raise InvalidInput("there are no statistics of no images")
        keys, counts, low_sums = self._compact()
        latents, bins = keys >> _BIN_BITS, keys & ((1 << _BIN_BITS) - 1)
        lower = _lower_edge(bins)
        # Within a bin a value is its lower edge plus its low bits times the spacing of floats there.
        sums = counts * lower + low_sums * np.spacing(lower.astype(np.float32)).astype(np.float64)
        n_tokens_active = np.zeros(self.d_sae, dtype=np.int64)
        np.add.at(n_tokens_active, latents, counts)
        return LatentStatistics(
            n_images=self._n_images,
            n_tokens=self._n_images * self.tokens_per_image,
            n_images_active=self._n_images_active.copy(),
            n_tokens_active=n_tokens_active,
            n_cls_active=self._n_cls_active.copy(),
            max=self._max.copy(),
            sum=np.bincount(latents, weights=sums, minlength=self.d_sae).astype(np.float64),
            bin_keys=keys,
            bin_counts=counts,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state as arrays, for the file of a shard."""
        keys, counts, low_sums = self._compact()
        return {
            "shape": np.array(
                [self.d_sae, self.tokens_per_image, self.has_cls, self._n_images], dtype=np.int64
            ),
            "n_images_active": self._n_images_active,
            "n_cls_active": self._n_cls_active,
            "max": self._max,
            "bin_keys": keys,
            "bin_counts": counts,
            "bin_low_sums": low_sums,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "StreamingStatistics":
        """Inverse of `to_arrays`."""
        d_sae, tokens_per_image, has_cls, n_images = (int(n) for n in arrays["shape"])
        statistics = cls(d_sae, tokens_per_image, bool(has_cls))
        statistics._n_images = n_images
        statistics._n_images_active = np.array(arrays["n_images_active"])
        statistics._n_cls_active = np.array(arrays["n_cls_active"])
        statistics._max = np.array(arrays["max"])
        statistics._add(arrays["bin_keys"], arrays["bin_counts"], arrays["bin_low_sums"])
        return statistics

    def _add(self, keys: np.ndarray, counts: np.ndarray, low_sums: np.ndarray) -> None:
        self._bins.append(_group(keys, counts, low_sums))
        if sum(len(k) for k, _, _ in self._bins[1:]) > max(_PENDING_LIMIT, len(self._bins[0][0])):
            self._compact()

    def _compact(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(self._bins) > 1:
            self._bins = [_group(*(np.concatenate(arrays) for arrays in zip(*self._bins, strict=True)))]
        return self._bins[0]


def _group(
    keys: np.ndarray, counts: np.ndarray, low_sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One entry per key, ascending. Sums stay in int64: float weights would round beyond 2^53."""
    order = np.argsort(keys, kind="stable")
    keys, counts, low_sums = keys[order], counts[order], low_sums[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    if not len(starts):
        return keys, counts, low_sums
    return keys[starts], np.add.reduceat(counts, starts), np.add.reduceat(low_sums, starts)


def _lower_edge(bins: np.ndarray) -> np.ndarray:
    """Smallest float32 of a bin, as float64. The bin after the last finite one starts at inf, taken as
    2^128.
    """
    bits = (np.asarray(bins, dtype=np.int64) << _LOW_BITS).astype(np.int32)
    edges = bits.view(np.float32).astype(np.float64)
    return np.where(np.isinf(edges), 2.0**128, edges)


def _check_width(received: int, expected: int) -> None:
    if received != expected:
        raise InvalidInput(f"the batch has d_sae={received}, expected {expected}")


def _check_latent(latent: int, d_sae: int) -> None:
    if not 0 <= latent < d_sae:
        raise LatentOutOfRange(f"latent {latent} does not lie in 0 .. {d_sae - 1}")
