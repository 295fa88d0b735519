"""How many CPU cores a computation takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiplications of one product of matrices that are not worth a second core: less than half a millisecond of one.
# Two threads in step, one waiting awake for its next share, then only keep the core from whoever asked: for one
# image of the demo's model (2.4 million) a call over gRPC waited 3.9 ms longer than a bare forward with two threads
# and 2.0 ms with one, over HTTP 13.6 and 10.1 ms.
ONE_CORE_PRODUCT = 10_000_000


def compute_on_one_core() -> None:
    """For each thread of a pool that calls an engine with a batcher: it computes on one core from now on.

    torch gives every calling thread a pool of workers of its own. Those of many callers, spinning between their
    small operations, would take the cores from the device thread. A thread that is new to torch takes the
    number that was set last by whichever thread, at its first use and whatever was set in it before that: never call
    this where other threads, such as the main one of a program, still have theirs before them.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)


@contextmanager
def cores_for(product: int) -> Iterator[None]:
    """Inside, this thread computes on one core when the widest product of matrices has few multiplications."""
    threads = torch.get_num_threads()
    if threads == 1 or product > ONE_CORE_PRODUCT:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
