"""Where activations come from, and the shuffle buffer that the trainer reads them through."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, InvalidSaeConfig
from fulcrum.science.sae.training.ranks import Ranks


@runtime_checkable
class ActivationSource(Protocol):
    """A finite stream of activations in a fixed order, that can be read again from any token."""

    d_in: int
    n_tokens: int  # in one epoch

    def read(self, start: int) -> Iterator[Float[Tensor, "n d_in"]]:
        """Consecutive chunks of any size, from token `start` (below n_tokens) to the end of the epoch."""
        ...


class TensorSource:
    """Activations that are already in memory."""

    def __init__(self, x: Float[Tensor, "n_tokens d_in"], chunk: int = 16_384) -> None:
        self.n_tokens, self.d_in = x.shape
        self._x, self._chunk = x, chunk

    def read(self, start: int) -> Iterator[Float[Tensor, "n d_in"]]:
        """Slices, without copying."""
        for at in range(start, self.n_tokens, self._chunk):
            yield self._x[at : at + self._chunk]


class StreamSource:
    """Activations from `make()`, which starts the same stream anew each time; seeking skips chunks."""

    def __init__(
        self, make: Callable[[], Iterable[Float[Tensor, "n d_in"]]], n_tokens: int, d_in: int
    ) -> None:
        self.n_tokens, self.d_in = n_tokens, d_in
        self._make = make

    def read(self, start: int) -> Iterator[Float[Tensor, "n d_in"]]:
        """Chunks of the stream, the first one cut at `start`."""
        passed = 0
        for chunk in self._make():
            if passed + chunk.shape[0] > start:
                yield chunk[max(0, start - passed) :]
            passed += chunk.shape[0]


class SharedSource:
    """A source of `n_tokens` that several processes read together: each produces its segments, and all get everything,
    in order.

    `mine` holds the segments of this process alone, one after the other: those of `own_segments`. A token is produced
    by the same process in each epoch, so what that one keeps is of use to it.
    """

    def __init__(self, mine: ActivationSource, ranks: Ranks, segment_tokens: int, n_tokens: int) -> None:
        self.d_in, self.n_tokens = mine.d_in, n_tokens
        self._mine, self._ranks, self._segment = mine, ranks, segment_tokens

    def read(self, start: int) -> Iterator[Float[Tensor, "n d_in"]]:
        """Segments, the first one cut at `start`."""
        size, rank, segment = self._ranks.size, self._ranks.rank, self._segment
        first, end = start // segment, -(-self.n_tokens // segment)
        produced = self._produced(-(-(first - rank) // size))
        for base in range(first - first % size, end, size):
            rows = next(produced) if first <= base + rank < end else self._nothing()
            together = self._ranks.gather(rows).split(segment)
            for number in range(max(base, first), min(base + size, end)):
                at = number * segment
                yield together[number - base][max(0, start - at) : self.n_tokens - at]

    def _produced(self, first: int) -> Iterator[Float[Tensor, "segment d_in"]]:
        """The segments of this process from its `first` on, the last of all filled up with zeros.

        One stream over all of them: a source may prepare the next while this one is used.
        """
        rows, filled = self._nothing(), 0
        for chunk in self._mine.read(first * self._segment):
            at = 0
            while at < chunk.shape[0]:
                taken = chunk[at : at + self._segment - filled]
                rows[filled : filled + taken.shape[0]] = taken
                at, filled = at + taken.shape[0], filled + taken.shape[0]
                if filled == self._segment:
                    yield rows
                    rows, filled = self._nothing(), 0
        if filled:
            yield rows

    def _nothing(self) -> Float[Tensor, "segment d_in"]:
        return torch.zeros(self._segment, self.d_in, device=self._ranks.device)


def own_segments(n: int, segment: int, ranks: Ranks) -> NDArray[np.int64]:
    """Which of `n` in a row this process produces: every `ranks.size`-th segment of so many."""
    return np.flatnonzero(np.arange(n) // segment % ranks.size == ranks.rank)


class ShuffledBlocks:
    """The endless stream of epochs, cut into blocks of `block_tokens` that are shuffled as a whole.

    Block b holds tokens `b * block_tokens` and on, in an order that depends on (seed, b) alone, so that a
    resumed run refills the block it was in and goes on with the same batches.
    """

    def __init__(
        self, source: ActivationSource, block_tokens: int, seed: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._source, self._seed = source, seed
        self.block_tokens = block_tokens
        self._dtype, self._device = dtype, device
        self._buffer: Tensor | None = None
        self._position: int | None = None
        self._chunks: Iterator[Tensor] = iter(())
        self._left: Tensor | None = None

    def block(self, index: int) -> Float[Tensor, "block_tokens d_in"]:
        """Block `index`, shuffled. The tensor is overwritten by the next call.

        Raises ComputationFailed for activations that are not finite, InvalidSaeConfig for another width.
        """
        if self._buffer is None:
            shape = (self.block_tokens, self._source.d_in)
            self._buffer = torch.empty(shape, dtype=self._dtype, device=self._device)
        generator = torch.Generator().manual_seed(_mix(self._seed, index))
        order = torch.randperm(self.block_tokens, generator=generator).to(self._device)
        self._seek(index * self.block_tokens)
        filled = 0
        while filled < self.block_tokens:
            chunk = self._next(self.block_tokens - filled)
            # Written to shuffled rows at once: no second copy of the block.
            self._buffer[order[filled : filled + chunk.shape[0]]] = chunk
            filled += chunk.shape[0]
        self._position = (index + 1) * self.block_tokens
        return self._buffer

    def _seek(self, position: int) -> None:
        if self._position != position:
            self._left = None
            self._chunks = self._source.read(position % self._source.n_tokens)

    def _next(self, n_wanted: int) -> Tensor:
        """Up to `n_wanted` further tokens, checked; starts the next epoch where one ends."""
        if self._left is None or self._left.shape[0] == 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._chunks = self._source.read(0)
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise InvalidSaeConfig("the activation source is empty")
            self._left = self._checked(chunk)
        taken, self._left = self._left[:n_wanted], self._left[n_wanted:]
        return taken

    def _checked(self, chunk: Tensor) -> Tensor:
        if chunk.ndim != 2 or chunk.shape[1] != self._source.d_in:
            raise InvalidSaeConfig(
                f"activations have shape {tuple(chunk.shape)}, expected (n, {self._source.d_in})"
            )
        cast = chunk.detach().to(self._device, self._dtype)
        if not torch.isfinite(cast).all():
            cause = (
                "nan or inf"
                if not torch.isfinite(chunk).all()
                else f"values beyond the range of {self._dtype}"
            )
            raise ComputationFailed(f"activations contain {cause}; training on them would ruin the SAE")
        return cast


def _mix(seed: int, index: int) -> int:
    """One seed per (seed, block), far apart for neighbouring blocks."""
    return (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
