"""`python -m tests.worker.serve_entry [MODULE]`: a worker whose pool is that of `entry`, or of another module."""

import os
import sys

from fulcrum.telemetry import configure_logging
from fulcrum.worker.serving import serve
from fulcrum.worker.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("worker", settings.log_level)
    pool = sys.argv[1] if len(sys.argv) > 1 else "tests.worker.entry"
    raise SystemExit(serve(settings, os.environ, (sys.executable, "-m", pool)))
