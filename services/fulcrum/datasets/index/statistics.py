"""What is known about every latent over the whole data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.shards import counts_of
from fulcrum.domain.errors import InvalidSettings

Array = NDArray[Any]

N_BINS: Final = 128
# A bin is a quarter of an octave of float32: its upper bits are exponent and two bits of mantissa. Bin 0
# starts at 2**-16, bin 127 ends at 2**16; what lies outside is counted in the outermost.
_SHIFT: Final = 21
_FIRST: Final = (127 - 16) << 2
_CHUNK: Final = 1 << 21  # entries at a time


@dataclass(frozen=True)
class LatentStatistics:
    """Columns (d_sae,) over all images and tokens; `histogram` (d_sae, 128) counts active tokens by value."""

    n_images: int
    n_tokens: int  # of all images together
    n_images_active: NDArray[np.int64]
    n_tokens_active: NDArray[np.int64]
    max: NDArray[np.float32]
    sum: NDArray[np.float64]
    sum_of_squares: NDArray[np.float64]
    histogram: NDArray[np.int64]

    @property
    def image_rate(self) -> NDArray[np.float64]:
        """Share of images in which the latent fires."""
        return self.n_images_active / self.n_images

    @property
    def token_rate(self) -> NDArray[np.float64]:
        """Share of tokens on which the latent fires."""
        return self.n_tokens_active / self.n_tokens

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over all tokens, silent ones included: the baseline of `mean_ablate`."""
        return self.sum / self.n_tokens

    @property
    def mean_active(self) -> NDArray[np.float64]:
        """Mean over the tokens on which it fires; 0 for a dead latent."""
        return self.sum / np.maximum(self.n_tokens_active, 1)

    @property
    def rms_active(self) -> NDArray[np.float64]:
        """Root of the mean square over the tokens on which it fires: the size of what may have either sign."""
        rms: NDArray[np.float64] = np.sqrt(self.sum_of_squares / np.maximum(self.n_tokens_active, 1))
        return rms

    def quantile(self, q: float) -> NDArray[np.float64]:
        """Quantile of the active values from the histogram, within a quarter octave; 0 for a dead latent.

        `LatentIndex.quantile` reads one latent exactly.
        """
        if not 0 <= q <= 1:
            raise InvalidSettings(f"a quantile lies in 0 .. 1, got {q}")
        cumulative = np.cumsum(self.histogram, axis=1)
        total = cumulative[:, -1]
        wanted = q * total
        bins = np.minimum((cumulative < wanted[:, None]).sum(axis=1), N_BINS - 1)
        rows = np.arange(len(total))
        before = np.where(bins > 0, cumulative[rows, np.maximum(bins - 1, 0)], 0)
        share = (wanted - before) / np.maximum(self.histogram[rows, bins], 1)
        edges = bin_edges()
        value = edges[bins] + np.clip(share, 0, 1) * (edges[bins + 1] - edges[bins])
        return np.where(total > 0, np.minimum(value, self.max), 0.0)

    @property
    def p99(self) -> NDArray[np.float64]:
        """`quantile(0.99)`: the unit in which doses are given."""
        return self.quantile(0.99)

    def arrays(self) -> dict[str, Array]:
        """What is stored."""
        return {
            "n_images_active": self.n_images_active,
            "n_tokens_active": self.n_tokens_active,
            "max": self.max,
            "sum": self.sum,
            "sum_of_squares": self.sum_of_squares,
            "histogram": self.histogram,
        }


def bin_edges() -> NDArray[np.float64]:
    """(129,) lower edges of the bins and the upper edge of the last."""
    steps = np.arange(N_BINS + 1)
    return np.ldexp(1 + (steps % 4) / 4, steps // 4 - 16)


def bins_of(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Bin of each value; they are > 0."""
    bins: NDArray[np.int64] = (values.view(np.uint32) >> _SHIFT).astype(np.int64) - _FIRST
    return np.clip(bins, 0, N_BINS - 1)


def gather_statistics(
    shards: Iterable[dict[str, Array]], n_images: int, n_tokens: int, d_sae: int
) -> LatentStatistics:
    """One pass over the shards' arrays, in their order, in float64, a bounded chunk at a time."""
    n_images_active = np.zeros(d_sae, dtype=np.int64)
    n_tokens_active = np.zeros(d_sae, dtype=np.int64)
    largest = np.zeros(d_sae, dtype=np.float32)
    total = np.zeros(d_sae)
    squares = np.zeros(d_sae)
    histogram = np.zeros(d_sae * N_BINS, dtype=np.int64)
    for arrays in shards:
        n_images_active += counts_of(arrays["posting_offsets"])
        maxima = np.maximum(arrays["posting_max_cls"], arrays["posting_max_patches"]).astype(np.float32)
        fired = np.flatnonzero(counts_of(arrays["posting_offsets"]))
        if fired.size:
            peaks = np.maximum.reduceat(maxima, arrays["posting_offsets"][fired].astype(np.int64))
            largest[fired] = np.maximum(largest[fired], peaks)
        offsets = arrays["pair_offsets"]
        pair = 0
        while pair < offsets.size - 1:
            wanted = int(offsets[pair]) + _CHUNK
            end = max(pair + 1, int(np.searchsorted(offsets, wanted, side="right")) - 1)
            counts = counts_of(offsets[pair : end + 1])
            latents = np.repeat(arrays["pair_latents"][pair:end].astype(np.int64), counts)
            values = np.asarray(arrays["values"][int(offsets[pair]) : int(offsets[end])], dtype=np.float32)
            n_tokens_active += np.bincount(latents, minlength=d_sae)
            exact = values.astype(np.float64)
            total += np.bincount(latents, weights=exact, minlength=d_sae)
            squares += np.bincount(latents, weights=exact * exact, minlength=d_sae)
            cells, n_in_cell = np.unique(latents * N_BINS + bins_of(values), return_counts=True)
            histogram[cells] += n_in_cell
            pair = end
    return LatentStatistics(
        n_images,
        n_images * n_tokens,
        n_images_active,
        n_tokens_active,
        largest,
        total,
        squares,
        histogram.reshape(d_sae, N_BINS),
    )
