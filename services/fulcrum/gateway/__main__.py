"""`python -m fulcrum.gateway`: reads the settings and serves until SIGTERM."""

import contextlib
import logging
import signal
import sys

import uvicorn
from pydantic import ValidationError

from fulcrum.domain.errors import FulcrumError
from fulcrum.gateway.app import create_app
from fulcrum.gateway.services import check_settings
from fulcrum.gateway.settings import Settings
from fulcrum.telemetry import configure_logging, configure_tracing, logger

_DRAIN_S = 8  # below the 10 s that supervisors and containers give before they kill


def main() -> int:
    """Exit status: 0 after a clean stop, 2 for settings that cannot be meant, 3 when the start failed."""
    try:
        settings = Settings()
        configure_logging("gateway", settings.log_level)
        configure_tracing("gateway", settings.otlp_endpoint)
        check_settings(settings)
    except (ValidationError, FulcrumError) as error:
        print(_words(error), file=sys.stderr)
        return 2
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,  # ours: JSON lines
        access_log=False,  # written by the application, with request ids
        server_header=False,
        date_header=True,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_graceful_shutdown=_DRAIN_S,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 << 10,
    )
    server = uvicorn.Server(config)
    logger("fulcrum.gateway").info("starting", host=settings.host, port=settings.port)
    logging.getLogger("alembic").setLevel(
        "WARNING"
    )  # readiness looks at the schema, and each look is two lines
    # After its drain uvicorn raises the signal again; a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else 3


def _words(error: ValidationError | FulcrumError) -> str:
    if isinstance(error, FulcrumError):
        return str(error)
    lines = [f"FULCRUM_GATEWAY_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
    return "\n".join(["The gateway cannot start with these settings:", *lines])


if __name__ == "__main__":
    sys.exit(main())
