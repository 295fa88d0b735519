"""Which errors of torch mean that memory is full, and which that the device is lost."""

import torch

from fulcrum.domain.errors import OutOfMemory

# What torch's allocator of CPU memory says in a plain RuntimeError.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Less at once may work."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def is_fatal(error: BaseException) -> bool:
    """The CUDA context is broken: every later call of this process would fail as well."""
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


def out_of_memory(error: BaseException) -> OutOfMemory:
    """As an error that a caller can act on."""
    return OutOfMemory(
        f"the device ran out of memory, also with half the rows: {str(error).splitlines()[0]}",
        retry_after_s=5.0,
    )


def empty_cache() -> None:
    """Gives back what torch keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
