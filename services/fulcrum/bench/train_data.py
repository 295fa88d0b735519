"""The activations that every trainer of the benchmark sees: a sparse mixture of directions, or a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fulcrum.domain.errors import InvalidSettings

# Amount of isotropic noise relative to the mixture's norm per dimension: what no dictionary can explain.
_NOISE = 0.1


class TrainData(Protocol):
    """Training batches in a fixed order, and held-out tokens."""

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Endless (batch_size, d_in) batches."""
        ...

    def held_out(self, n_tokens: int) -> Tensor:
        """Tokens that are in no training batch."""
        ...


class Mixture:
    """`k` of `n_directions` unit directions per token, chosen by a power law, with positive random amounts.

    Without a mean: trainers that cannot represent one would be compared on that alone.
    """

    def __init__(self, d_in: int, n_directions: int, k: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(n_directions, d_in, generator=generator)
        self._directions = directions / directions.norm(dim=1, keepdim=True)
        self._weights = (torch.arange(n_directions) + 10.0).pow(-0.5)
        self._k, self._seed = k, seed

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Fresh tokens in every batch; batch i depends on the seed and i alone."""
        index = 0
        while True:
            yield self._drawn(batch_size, 1000 * self._seed + 2 * index + 1)
            index += 1

    def held_out(self, n_tokens: int) -> Tensor:
        """Drawn from seeds that no batch uses."""
        return self._drawn(n_tokens, 1000 * self._seed + 2)

    def _drawn(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self._weights, n * self._k, replacement=True, generator=generator)
        amounts = 0.5 + torch.empty(n, self._k).exponential_(generator=generator)
        x = torch.nn.functional.embedding_bag(
            chosen.view(n, self._k), self._directions, mode="sum", per_sample_weights=amounts
        )
        scale = _NOISE * float(x.square().mean().sqrt())
        return x + scale * torch.randn(x.shape, generator=generator)


class ActivationFile:
    """Rows of an `.npy` file (n, d_in), shuffled once; the last tenth is held out."""

    def __init__(self, path: Path, d_in: int, seed: int) -> None:
        self._rows = np.load(path, mmap_mode="r")
        if self._rows.ndim != 2 or self._rows.shape[1] != d_in:
            raise InvalidSettings(f"{path} has shape {self._rows.shape}, expected (n, {d_in})")
        order = np.random.default_rng(seed).permutation(self._rows.shape[0])
        cut = self._rows.shape[0] * 9 // 10
        self._train, self._held_out = order[:cut], order[cut:]

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Epoch after epoch in the same order."""
        if self._train.shape[0] < batch_size:
            raise InvalidSettings(
                f"{self._train.shape[0]} training rows are fewer than a batch of {batch_size}"
            )
        while True:
            for start in range(0, self._train.shape[0] - batch_size + 1, batch_size):
                yield self._read(self._train[start : start + batch_size])

    def held_out(self, n_tokens: int) -> Tensor:
        """At most a tenth of the file."""
        return self._read(self._held_out[:n_tokens])

    def _read(self, rows: np.ndarray) -> Tensor:
        # Sorted access, then back into shuffled order: the file may be on a slow disk.
        order = np.argsort(rows)
        values = np.empty((rows.shape[0], self._rows.shape[1]), dtype=np.float32)
        values[order] = self._rows[rows[order]]
        return torch.from_numpy(values)
