"""What tests of the scheduler share: a device that is held, and forwards that are remembered."""

import contextlib
import threading
import time

import torch

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.engine.scopes import request_scope


class Gate:
    """Keeps the device thread busy until it is opened, so that a test decides what queues meanwhile."""

    def __init__(self, batcher):
        self.entered, self.open = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.ask, args=(batcher,))

    def ask(self, batcher):
        with contextlib.suppress(ServiceUnavailable):  # closed before it was opened
            batcher.run_alone(self.work)

    def work(self):
        self.entered.set()
        assert self.open.wait(20)

    def __enter__(self):
        self.thread.start()
        assert self.entered.wait(20)
        return self

    def __exit__(self, *_):
        self.open.set()
        self.thread.join(20)


class Recorder:
    """Doubles its rows, and remembers each forward."""

    def __init__(self):
        self.batches = []

    def __call__(self, rows):
        self.batches.append(rows[0].flatten(1)[:, 0].tolist())
        return (rows[0] * 2,)


def rows_of(*values):
    return (torch.tensor([[float(v), 1.0] for v in values]),)


def in_thread(pool, batcher, run, values, name="stage", **scope):
    def work():
        with request_scope(**scope):
            return batcher.submit(name, rows_of(*values), run)[0][:, 0].tolist()

    return pool.submit(work)


def wait_until(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)
