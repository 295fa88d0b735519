"""Signals that mean "stop": SIGINT (Ctrl-C), SIGTERM (of a service manager), SIGHUP (a closed terminal).

The first one is remembered, so that it cannot be lost: an exception raised by a signal handler is, where it strikes
inside an import or a finaliser. The second one is impatience.
"""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.1


class StopRequest:
    """Whether this process was asked to stop. `impatient` is called at every further signal, in the main thread."""

    def __init__(self) -> None:
        self.n_signals = 0
        self.impatient: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Raises KeyboardInterrupt once a signal came."""
        if self.n_signals:
            raise KeyboardInterrupt

    def result_of(self, work: Future[T]) -> T:
        """What `work` returns or raises. Raises KeyboardInterrupt when a signal comes first."""
        while not work.done():
            self.check()
            time.sleep(_POLL_S)
        return work.result()

    def wait(self) -> None:
        """Returns when a signal has come."""
        while not self.n_signals:
            time.sleep(_POLL_S)


@contextmanager
def stop_signals(interrupt: bool = False) -> Iterator[StopRequest]:
    """Inside, stop signals are counted; with `interrupt` the first one also raises KeyboardInterrupt where the main
    thread is. Main thread only.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.n_signals += 1
        if request.n_signals > 1:
            request.impatient()
        elif interrupt:
            raise KeyboardInterrupt

    before = {}
    for number in _STOP:
        # nohup ignores SIGHUP on purpose. SIGINT is ignored in every background job of a script, where somebody who
        # sends it means it.
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
