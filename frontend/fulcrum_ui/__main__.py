"""`python -m fulcrum_ui`: reads the settings and serves pages until SIGTERM."""

import sys
from pathlib import Path

from pydantic import ValidationError

from fulcrum_ui.settings import settings


def main() -> int:
    """Exit status 2 for settings that cannot be meant."""
    try:
        chosen = settings()
    except ValidationError as error:
        lines = [
            f"FULCRUM_FRONTEND_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        ]
        print("\n".join(["The frontend cannot start with these settings:", *lines]), file=sys.stderr)
        return 2
    from streamlit import App

    from fulcrum_ui import front, pictures, theme, troubles
    from fulcrum_ui.app import PAGES

    app = App(
        Path(__file__).parent / "app.py",
        routes=[*pictures.ROUTES, *front.routes(tuple(name for name, *_ in PAGES))],
        on_script_error=troubles.on_script_error,
    )
    app.run(
        config={
            "server.address": chosen.host,
            "server.port": chosen.port,
            "server.headless": True,
            "server.fileWatcherType": "none",
            "server.maxUploadSize": chosen.max_upload_mb,
            "server.runOnSave": False,
            "browser.gatherUsageStats": False,
            "browser.serverAddress": chosen.host,
            "client.showErrorDetails": "none",
            "client.toolbarMode": "minimal",
            "runner.magicEnabled": False,
            "logger.level": "warning",
            **theme.STREAMLIT,
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
