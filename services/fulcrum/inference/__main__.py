"""`python -m fulcrum.inference`: the inference service of this machine, set up by `FULCRUM_INFERENCE_*`."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time

from pydantic import ValidationError
from pydantic_settings import SettingsError

from fulcrum import telemetry
from fulcrum.domain.errors import FulcrumError
from fulcrum.inference.listening import check_address, server_credentials
from fulcrum.inference.settings import Settings

_EXIT_SETTINGS = 2
_EXIT_FATAL = 70  # EX_SOFTWARE: the supervisor starts a new process
_LAST_THREADS_S = 2.0

log = telemetry.logger(__name__)


async def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT, or until the device is beyond repair; the process's exit code."""
    from fulcrum.inference.server import (
        open_server,
    )  # PyTorch: many seconds, which wrong settings need not wait for

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_server(settings) as server:
        ends = [asyncio.create_task(event.wait()) for event in (stopping, server.fatal)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await end
        return _EXIT_FATAL if server.fatal.is_set() else 0


def main() -> int:
    """Exit code: 0 after a clean stop, 2 for settings that cannot be, 70 when the device is beyond repair."""
    try:
        settings = Settings()
        telemetry.configure_logging("inference", settings.log_level)
        telemetry.configure_tracing("inference", settings.otlp_endpoint)
        check_address(settings)
        server_credentials(settings)
        return asyncio.run(serve(settings))
    except ValidationError as error:
        for line in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in line["loc"]).upper()
            print(f"error: FULCRUM_INFERENCE_{name}: {line['msg']} [INVALID_SETTINGS]", file=sys.stderr)
        return _EXIT_SETTINGS
    except SettingsError as error:  # JSON that is none
        print(f"error: FULCRUM_INFERENCE_*: {error}: {error.__cause__} [INVALID_SETTINGS]", file=sys.stderr)
        return _EXIT_SETTINGS
    except FulcrumError as error:
        print(f"error: {error} [{error.reason}]", file=sys.stderr)
        return _EXIT_SETTINGS


if __name__ == "__main__":
    code = main()
    # A thread that hangs in the device would keep the process alive for ever.
    until = time.monotonic() + _LAST_THREADS_S
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                logging.shutdown()
                os._exit(code)
    raise SystemExit(code)
