"""Signals that mean "stop": each becomes KeyboardInterrupt in the main thread, so that all is undone in order."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Inside, SIGTERM (of a service manager) and SIGHUP (a closed terminal) stop as Ctrl-C does. Main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    for number in _STOP:
        # Ignored on purpose, by nohup for example: stays so. (A shell's background job ignores SIGINT.)
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_stop() -> None:
    """Returns when a stop signal came; use inside `stop_signals`."""
    try:
        while True:
            time.sleep(0.5)  # not signal.pause(): a signal just before it would be slept over
    except KeyboardInterrupt:
        return
