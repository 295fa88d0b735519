"""`python -m fulcrum.worker`: a worker of this machine, set up by `FULCRUM_WORKER_*`."""

import os
import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from fulcrum import telemetry
from fulcrum.domain.errors import FulcrumError
from fulcrum.worker.settings import Settings

_EXIT_SETTINGS = 2


def main() -> int:
    """Exit code: 0 after a clean stop, 2 for settings that cannot be, 70 when the pool is gone."""
    try:
        settings = Settings()
        telemetry.configure_logging("worker", settings.log_level)
        from fulcrum.worker.serving import serve  # Celery, which wrong settings need not wait for

        return serve(settings, os.environ)
    except ValidationError as error:
        for line in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in line["loc"]).upper()
            print(f"error: FULCRUM_WORKER_{name}: {line['msg']} [INVALID_SETTINGS]", file=sys.stderr)
    except SettingsError as error:  # JSON that is none
        print(f"error: FULCRUM_WORKER_*: {error}: {error.__cause__} [INVALID_SETTINGS]", file=sys.stderr)
    except FulcrumError as error:
        print(f"error: {error} [{error.reason}]", file=sys.stderr)
    return _EXIT_SETTINGS


if __name__ == "__main__":
    raise SystemExit(main())
