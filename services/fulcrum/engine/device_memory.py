"""Which errors of torch mean that memory is full, and which that the device is lost."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from fulcrum.domain.errors import OutOfMemory

_MEMORY = Path("/proc/meminfo")

P = ParamSpec("P")
R = TypeVar("R")

# What torch says in errors of other classes: its allocator of CPU memory, the driver and cuBLAS, which take memory
# past torch's own allocator. The last two look like a lost device and leave it as it was.
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Less at once may work."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def is_fatal(error: BaseException) -> bool:
    """The CUDA context is broken: every later call of this process would fail as well."""
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


def out_of_memory(error: BaseException, tried: str = "at the size that was asked for") -> OutOfMemory:
    """As an error that a caller can act on."""
    said = str(error).splitlines()
    return OutOfMemory(
        f"the device ran out of memory, {tried}: {said[0] if said else 'no more is known'}",
        retry_after_s=5.0,
    )


def tells_full_memory(method: Callable[P, R]) -> Callable[P, R]:
    """The method, raising OutOfMemory where torch in the calling thread finds no memory."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = out_of_memory(error)
        # Here the frames that hold what filled the memory are gone.
        empty_cache()
        raise failure

    return call


def available_bytes(device: torch.device) -> int | None:
    """What could be allocated now, None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu" and _MEMORY.is_file():
        for line in _MEMORY.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) << 10
    return None


def empty_cache() -> None:
    """Gives back what torch keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
