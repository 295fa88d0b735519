"""Edited activations that wait until a batch of the suffix is full."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.engine.image_batches import BATCH_SIZE
from fulcrum.science.steering.forward import suffix_embeddings
from fulcrum.science.vision.split import HookState, SplitTower

# One row for each embedding: whatever the caller needs to know where it belongs.
Tags = NDArray[np.int64]


class SuffixQueue:
    """Rows of any images and plans ride in one batch, which is always full: few rows cost nearly as much as many.

    Only what the last batch lacks is filled up (with its last row), so that every row has the bits of a full batch.
    `sink` gets the tags and embeddings of each batch, in the order in which they came.
    """

    def __init__(
        self, tower: SplitTower, sink: Callable[[Tags, Tensor], None], size: int = BATCH_SIZE
    ) -> None:
        self._tower, self._sink, self._size = tower, sink, size
        self._waiting: list[tuple[Tags, Tensor, Tensor | None]] = []
        self._n_waiting = 0
        self.n_rows = 0

    def add(self, tags: Tags, x: Tensor, carry: Tensor | None) -> None:
        """Takes rows; runs as many full batches as there are. Raises ComputationFailed."""
        if not len(tags):
            return
        self._waiting.append((tags, x, carry))
        self._n_waiting += len(tags)
        if self._n_waiting >= self._size:
            self._run(self._n_waiting // self._size * self._size)

    def finish(self) -> None:
        """Runs what is left."""
        if self._n_waiting:
            self._run(self._n_waiting)

    def _run(self, n: int) -> None:
        tags = np.concatenate([w[0] for w in self._waiting])
        x = torch.cat([w[1] for w in self._waiting])
        carries = [w[2] for w in self._waiting if w[2] is not None]
        carry = torch.cat(carries) if carries else None
        rest = (tags[n:], x[n:], None if carry is None else carry[n:])
        self._waiting, self._n_waiting = ([rest], len(rest[0])) if len(rest[0]) else ([], 0)
        for start in range(0, n, self._size):
            part = slice(start, min(start + self._size, n))
            self._sink(tags[part], self._batch(x[part], None if carry is None else carry[part]))
        self.n_rows += n

    def _batch(self, x: Tensor, carry: Tensor | None) -> Tensor:
        n = x.shape[0]
        rows: Any = torch.arange(n, device=x.device)
        if n < self._size:
            rows = torch.cat([rows, rows[-1:].expand(self._size - n)])
            x, carry = x[rows], None if carry is None else carry[rows]
            rows = torch.arange(self._size, device=x.device)
        return suffix_embeddings(self._tower, HookState(x, carry), x, rows, self._size)[:n]
