"""One forward over the rows of several requests, on the device thread: how many rows, and which bits."""

from collections import Counter

import torch

from fulcrum.domain.errors import ComputationFailed
from fulcrum.engine.batch_queue import Piece, Rows, Run, Stage

# Rows of a forward, free and deterministic. A CPU gains nothing beyond 8 to 16 rows, where the activations begin to
# leave its caches, and a small bucket wastes little on a single row; an accelerator needs more rows to be busy.
MAX_ROWS = {"cpu": 16, "cuda": 64}
BUCKETS = {"cpu": 8, "cuda": 32}
_LARGEST_BUCKET = 64


class Forwards:
    """Runs batches and knows how large they may be; counts what it ran."""

    def __init__(self, max_rows: int, bucket: int) -> None:
        self.max_rows, self.bucket = max_rows, bucket
        self._limits: dict[Stage, int] = {}  # of stages that ran out of memory
        self._buckets: dict[Stage, int] = {}  # of stages that ran deterministically
        self.batches = self.rows = self.padding_rows = 0
        self.sizes: Counter[int] = Counter()

    def limit(self, stage: Stage) -> int:
        """Rows that the next forward of this stage may have."""
        if stage.deterministic:
            return self._buckets.get(stage, self.bucket)
        return self._limits.get(stage, self.max_rows)

    def smaller(self, stage: Stage, pieces: list[Piece]) -> list[list[Piece]]:
        """The batch in halves, which from now on is the largest of its stage.

        A deterministic forward keeps its size, because another one has other bits.
        """
        n = sum(piece.n_rows for piece in pieces)
        if stage.deterministic or stage.alone or n < 2:
            return [pieces]
        self._limits[stage] = (n + 1) // 2
        if len(pieces) == 1:
            return [[half] for half in pieces[0].halves()]
        middle = len(pieces) // 2
        return [pieces[:middle], pieces[middle:]]

    def run(self, stage: Stage, pieces: list[Piece]) -> tuple[list[Rows], int]:
        """The results of each piece, and the rows that ran for them. Raises what `run` of the pieces raises."""
        run = pieces[0].item.run
        if stage.alone:
            run(())
            self._count(1, 1)
            return [()], 1
        n = sum(piece.n_rows for piece in pieces)
        # Whatever mode the caller whose thread this may be is in: others find the results in a cache.
        with torch.inference_mode(False), torch.no_grad():
            n_ran = self._bucket(stage, pieces[0]) if stage.deterministic else n
            results = run(_together(pieces, n_ran, copy=stage.deterministic))
        _synchronise(results)
        self._count(n, n_ran)
        if len(pieces) == 1 and n == n_ran:
            return [results], n_ran
        ends = torch.tensor([piece.n_rows for piece in pieces]).cumsum(0).tolist()
        return [
            tuple(t[end - piece.n_rows : end] for t in results)
            for piece, end in zip(pieces, ends, strict=True)
        ], n_ran

    def _count(self, n: int, n_ran: int) -> None:
        self.batches += 1
        self.rows += n
        self.padding_rows += n_ran - n
        self.sizes[n_ran] += 1

    def _bucket(self, stage: Stage, piece: Piece) -> int:
        """Checked on this device before it is relied on: libraries choose their kernels by shape."""
        if stage not in self._buckets:
            row = tuple(t[piece.start : piece.start + 1] for t in piece.rows)
            size = self.bucket
            while not _same_in_every_slot(piece.item.run, row, size):
                size *= 2
                if size > max(_LARGEST_BUCKET, self.bucket):
                    raise ComputationFailed(
                        f"no batch of {self.bucket} to {size // 2} rows has the same bits in every slot on this "
                        "device, so a deterministic answer is not possible"
                    )
            self._buckets[stage] = size
        return self._buckets[stage]


def _together(pieces: list[Piece], n_rows: int, copy: bool) -> Rows:
    """The rows of all pieces, the last one repeated up to `n_rows`."""
    columns: list[list[torch.Tensor]] = [[] for _ in pieces[0].rows]
    for piece in pieces:
        for column, tensor in zip(columns, piece.rows, strict=True):
            column.append(tensor[piece.start : piece.stop])
    missing = n_rows - sum(piece.n_rows for piece in pieces)
    if missing > 0:
        for column in columns:
            column.append(column[-1][-1:].expand(missing, *column[-1].shape[1:]))
    # A copy, also of a single piece: how memory is aligned may choose another kernel, and so other bits.
    return tuple(
        torch.cat(column) if len(column) > 1 else column[0].clone() if copy else column[0]
        for column in columns
    )


def _same_in_every_slot(run: Run, row: Rows, size: int) -> bool:
    """Whether rows keep their bits when all of them move one slot on. Rows that differ are made from the one."""
    generator = torch.Generator().manual_seed(0)

    def others(tensor: torch.Tensor) -> torch.Tensor:
        rolled = torch.cat([tensor.roll(i, -1) for i in range(size)])
        if not tensor.is_floating_point():
            return rolled  # tokens of a text
        return rolled + torch.randn(rolled.shape, generator=generator).to(rolled)

    rows = tuple(others(tensor) for tensor in row)
    here, moved = run(rows), run(tuple(t.roll(1, 0) for t in rows))
    return all(torch.equal(a.roll(1, 0), b) for a, b in zip(here, moved, strict=True))


def _synchronise(results: Rows) -> None:
    """Kernels are launched ahead of their completion: without waiting, batches of one would be launched for ever."""
    for tensor in results:
        if tensor.device.type == "cuda":
            torch.cuda.current_stream(tensor.device).synchronize()
            return
