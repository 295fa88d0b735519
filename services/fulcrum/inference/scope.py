"""Temporary stand-in until the engine's request scope is there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Figures:
    """Of one request."""

    queue_ms: float = 0.0
    compute_ms: float = 0.0
    batch_size: int = 1
    prefix_cached: bool = False
    deterministic: bool = False


@contextmanager
def request_scope(
    *, user: str, deterministic: bool, deadline: float, cancel: threading.Event
) -> Iterator[Figures]:
    """Figures that stay empty."""
    yield Figures(deterministic=deterministic)
