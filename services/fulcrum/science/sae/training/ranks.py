"""Processes that train one SAE together: each takes its rows of every batch, and all keep the same weights.

What they exchange are sums over rows, so several come to the numbers of one alone, but for the order of additions.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """One process of `size`. Its methods must be called by all of them, in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank, self.size = rank, size
        self.device = torch.device(device)

    @property
    def is_first(self) -> bool:
        """The one that speaks and writes."""
        return self.rank == 0

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its mean over all processes."""
        if self.size == 1:
            return
        held = list(tensors)
        waiting = [dist.all_reduce(tensor, async_op=True) for tensor in held]
        for work, tensor in zip(waiting, held, strict=True):
            work.wait()
            tensor.div_(self.size)

    def any(self, mask: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """True where it is in one of them."""
        if self.size == 1:
            return mask
        counts = mask.to(torch.uint8)
        dist.all_reduce(counts, dist.ReduceOp.MAX)
        return counts.bool()

    def smallest(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The least of all."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MIN)
        return value

    def gather(self, rows: Float[Tensor, "n ..."]) -> Float[Tensor, "n_in_all ..."]:
        """Those of all, in the order of the processes; of equal shape in each."""
        if self.size == 1:
            return rows
        together = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(together, rows.contiguous())
        return torch.cat(together)

    def all_agree(self, yes: bool) -> bool:
        """Whether all say yes."""
        if self.size == 1:
            return yes
        answer = torch.tensor(int(yes), device=self.device)
        dist.all_reduce(answer, dist.ReduceOp.MIN)
        return bool(answer)

    def in_turn(self, make: Callable[[], T]) -> T:
        """What each of them makes, the others once the first has made it."""
        made = make() if self.is_first else None
        self.all_agree(True)
        return make() if made is None else made


ALONE = Ranks()


@contextmanager
def torchrun_ranks(device: str) -> Iterator[Ranks]:
    """The processes that `torchrun` started, each on a GPU of its own where `device` is cuda; else this one alone."""
    if not dist.is_torchelastic_launched():
        yield Ranks(device=device)
        return
    cuda = device.startswith("cuda")
    device = _own_gpu(dist.get_node_local_rank()) if cuda else device
    dist.init_process_group("nccl" if cuda else "gloo")
    with _group(device) as ranks:
        yield ranks


@contextmanager
def meeting_ranks(rank: int, size: int, device: str, meeting: Path) -> Iterator[Ranks]:
    """Processes of this machine that meet at a file which is not there yet; each on a GPU of its own where `device` is
    cuda.
    """
    cuda = device == "cuda"
    device = _own_gpu(rank) if cuda else device
    # A file, and no port that others could reach.
    where = f"file://{meeting.absolute()}"
    dist.init_process_group("nccl" if cuda else "gloo", init_method=where, rank=rank, world_size=size)
    with _group(device) as ranks:
        yield ranks


def _own_gpu(rank: int) -> str:
    device = f"cuda:{rank}"
    torch.cuda.set_device(device)
    return device


@contextmanager
def _group(device: str) -> Iterator[Ranks]:
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
