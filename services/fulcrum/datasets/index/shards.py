"""One shard of an index: token CSR in, arrays that can be read both ways round out.

A *pair* is an image with a latent that fires in it. Entries (token, value) are stored once, grouped by pair,
pairs ordered by image and latent: an image is one contiguous run. The posting lists hold, for each latent,
its pairs by image, with the maxima that answer most questions without touching an entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.key import IndexLayout
from fulcrum.domain.errors import ComputationFailed, InvalidSettings, LatentOutOfRange

Array = NDArray[Any]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class ImageBlock:
    """Some consecutive images, grouped by pair."""

    n_pairs: Array  # (n_images,)
    pair_latents: Array  # (n_pairs,) ascending within an image
    n_entries: Array  # (n_pairs,)
    tokens: Array  # (n_entries,) ascending within a pair
    values: Array  # (n_entries,)


def image_block(offsets: Array, latents: Array, values: Array, layout: IndexLayout) -> ImageBlock:
    """Checks CSR over (images x tokens) and groups it.

    Raises InvalidSettings, LatentOutOfRange, ComputationFailed (non-finite values).
    """
    offsets = np.asarray(offsets, dtype=np.int64)
    latents, values = np.asarray(latents), np.asarray(values)
    n_images = (offsets.size - 1) // layout.n_tokens
    _check_csr(offsets, latents, values, n_images, layout)
    latents = latents.astype(layout.latent_dtype, copy=False)
    values = _stored(values, layout)
    counts = counts_of(offsets)
    tokens = np.repeat(np.tile(np.arange(layout.n_tokens, dtype=layout.token_dtype), n_images), counts)
    bounds = offsets[:: layout.n_tokens]
    order = np.empty(latents.size, dtype=np.int64)
    for start, end in pairwise(bounds.tolist()):
        # Stable: tokens stay ascending within a latent. On 16-bit latents numpy sorts by counting.
        order[start:end] = start + np.argsort(latents[start:end], kind="stable")
    latents, tokens, values = latents[order], tokens[order], values[order]
    is_first = np.ones(latents.size, dtype=bool)
    is_first[1:] = latents[1:] != latents[:-1]
    is_first[bounds[:-1][np.diff(bounds) > 0]] = True
    if latents.size and np.any(~is_first[1:] & (tokens[1:] == tokens[:-1])):
        raise InvalidSettings("a token lists the same latent twice")
    first = np.flatnonzero(is_first)
    return ImageBlock(
        n_pairs=np.diff(np.searchsorted(first, bounds)),
        pair_latents=latents[first],
        n_entries=np.diff(np.append(first, latents.size)),
        tokens=tokens,
        values=values,
    )


def shard_arrays(blocks: Sequence[ImageBlock], layout: IndexLayout) -> dict[str, Array]:
    """The arrays of a shard from its images in order."""
    pair_latents = np.concatenate([b.pair_latents for b in blocks])
    tokens = np.concatenate([b.tokens for b in blocks])
    values = np.concatenate([b.values for b in blocks])
    image_offsets = _offsets(np.concatenate([b.n_pairs for b in blocks]))
    pair_offsets = _offsets(np.concatenate([b.n_entries for b in blocks]))
    n_images = image_offsets.size - 1
    images = np.repeat(np.arange(n_images, dtype=_unsigned(n_images)), counts_of(image_offsets))
    max_cls, max_patches = _pair_maxima(pair_offsets, tokens, values, layout)
    # A stable sort by latent is the counting sort of the posting lists: images stay ascending in each list.
    order = np.argsort(pair_latents, kind="stable")
    return {
        "image_offsets": image_offsets,
        "pair_latents": pair_latents,
        "pair_offsets": pair_offsets,
        "tokens": tokens,
        "values": values,
        "posting_offsets": _offsets(np.bincount(pair_latents, minlength=layout.d_sae)),
        "posting_pairs": order.astype(np.uint32),
        "posting_images": images[order],
        "posting_max_cls": max_cls[order],
        "posting_max_patches": max_patches[order],
    }


def gather(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """(positions of all entries of the chosen CSR rows, how many each row has)."""
    starts = offsets[rows].astype(np.int64)
    counts = offsets[rows + 1].astype(np.int64) - starts
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts), counts


def _pair_maxima(
    pair_offsets: Array, tokens: Array, values: Array, layout: IndexLayout
) -> tuple[Array, Array]:
    """Largest value of each pair on CLS and on patches; 0 where it does not fire there."""
    starts = pair_offsets[:-1].astype(np.int64)
    if starts.size == 0:
        return np.zeros(0, values.dtype), np.zeros(0, values.dtype)
    if not layout.has_cls:
        return np.zeros(starts.size, values.dtype), np.maximum.reduceat(values, starts)
    on_patches = np.where(tokens == 0, values.dtype.type(0), values)
    # Tokens ascend within a pair, so CLS can only be its first entry.
    on_cls = np.where(tokens[starts] == 0, values[starts], values.dtype.type(0))
    return on_cls, np.maximum.reduceat(on_patches, starts)


def _check_csr(offsets: Array, latents: Array, values: Array, n_images: int, layout: IndexLayout) -> None:
    if offsets.ndim != 1 or offsets.size != n_images * layout.n_tokens + 1:
        raise InvalidSettings(
            f"offsets must have n_images * {layout.n_tokens} + 1 entries (CSR over images x tokens), "
            f"got {offsets.size}"
        )
    if offsets[0] != 0 or offsets[-1] != latents.size or np.any(np.diff(offsets) < 0):
        raise InvalidSettings(f"offsets must ascend from 0 to the number of latents, {latents.size}")
    if values.shape != latents.shape or latents.ndim != 1:
        raise InvalidSettings(
            f"latents and values must have one shape (n,), got {latents.shape}, {values.shape}"
        )
    if latents.size == 0:
        return
    if not np.issubdtype(latents.dtype, np.integer):
        raise InvalidSettings(f"latents must be whole numbers, got {latents.dtype}")
    if latents.min() < 0 or latents.max() >= layout.d_sae:
        raise LatentOutOfRange(
            f"latents must be 0 .. {layout.d_sae - 1}, got {latents.min()} .. {latents.max()}"
        )
    if not np.all(np.isfinite(values)):
        raise ComputationFailed("values of latents are not finite")
    if not np.all(values > 0):
        raise InvalidSettings(f"an index holds latents that fire (value > 0), got {values.min()}")


def _stored(values: Array, layout: IndexLayout) -> Array:
    if layout.value_dtype == "float32":
        stored = values.astype(np.float32)
    else:
        stored = np.minimum(values, np.finfo(np.float16).max).astype(np.float16)
    # Rounding to 0 would say that a latent which fires does not.
    return np.maximum(stored, np.finfo(stored.dtype).smallest_subnormal)


def _offsets(counts: Array) -> Array:
    offsets = np.zeros(counts.size + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    if offsets[-1] >= 1 << 32:
        raise InvalidSettings(
            f"a shard holds at most 2**32 entries, got {offsets[-1]}: lower images_per_shard"
        )
    return offsets.astype(np.uint32)


def _unsigned(n: int) -> str:
    return "<u2" if n <= 1 << 16 else "<u4"


def counts_of(offsets: Array) -> Numbers:
    """Lengths of CSR rows; unsigned offsets are widened first."""
    wide = offsets.astype(np.int64)
    return wide[1:] - wide[:-1]
