"""`python -m tests.worker.serve_entry`: a worker whose pool is that of `entry`."""

import os
import sys

from fulcrum.telemetry import configure_logging
from fulcrum.worker.serving import serve
from fulcrum.worker.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("worker", settings.log_level)
    raise SystemExit(serve(settings, os.environ, (sys.executable, "-m", "tests.worker.entry")))
