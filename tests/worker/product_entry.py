"""`python -m tests.worker.product_entry FD`: the product's pool, slow while there is a file `slow` in its cache."""

import sys
import time

from fulcrum.telemetry import configure_logging
from fulcrum.worker.handlers.registry import HANDLERS
from fulcrum.worker.held import Held
from fulcrum.worker.pool import run_pool
from fulcrum.worker.settings import Settings

PAUSE_S = 0.5  # more than a beat: what is told is written before the next step


def slow_down():
    told = Held.progress

    def progress(self, *args, **kwargs):
        told(self, *args, **kwargs)
        if (self.cache / "slow").exists():
            time.sleep(PAUSE_S)

    Held.progress = progress


if __name__ == "__main__":
    settings = Settings()
    configure_logging("worker", settings.log_level)
    slow_down()
    run_pool(settings, int(sys.argv[1]), lambda: HANDLERS)
