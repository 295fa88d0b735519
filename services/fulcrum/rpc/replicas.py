"""Which replica is asked, and when another one is.

The same image goes to the same replica, where its activations are cached: rendezvous hashing, so that a replica that
comes or goes moves only the images that are its own.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from fulcrum.domain.errors import FulcrumError, Overloaded, ServiceUnavailable
from fulcrum.rpc.images import image_sha256


def in_order(addresses: Sequence[str], request: Any) -> list[str]:
    """Addresses in the order in which they are asked."""
    return list(addresses) if len(addresses) == 1 else ranked(addresses, affinity_key(request))


def ranked(addresses: Sequence[str], key: str) -> list[str]:
    """Addresses in the order in which they are asked about `key`."""
    return sorted(addresses, key=lambda a: hashlib.sha256(f"{a}\0{key}".encode()).digest())


def affinity_key(request: Any) -> str:
    """What should be asked about in one place: the image where there is one (the first of many), else the model."""
    if image := getattr(request, "image", None):
        return image_sha256(image)
    if images := getattr(request, "images", ()):
        return image_sha256(images[0])
    return repr(getattr(request, "model", None) or getattr(request, "ref", ""))


class Attempts:
    """Decides after each failure whether the next replica is asked. Every call is pure, so repeating it is safe."""

    def __init__(self) -> None:
        self._failures: list[FulcrumError] = []
        self._lost = 0

    def go_on(self, error: FulcrumError, *, lost: bool) -> bool:
        """True for a replica that cannot be reached or refuses for now, and the first that was `lost` mid-call."""
        self._failures.append(error)
        self._lost += lost
        # A request that kills the process which computes it must not visit every replica.
        return isinstance(error, ServiceUnavailable | Overloaded) and self._lost < 2

    def outcome(self) -> FulcrumError:
        """What the caller learns when nobody answered: that somebody is busy rather than that somebody is away."""
        return next((e for e in self._failures if isinstance(e, Overloaded)), self._failures[-1])


class Deadline:
    """One limit over all attempts of a call; None waits for ever."""

    def __init__(self, timeout_s: float | None) -> None:
        self._ends = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        """What the next attempt may take."""
        return None if self._ends is None else max(self._ends - time.monotonic(), 0.001)

    def passed(self) -> bool:
        """Whether nothing is left."""
        return self._ends is not None and time.monotonic() >= self._ends
