"""The OpenAPI file that is committed, for reviewers, clients and fuzzers: `python -m fulcrum.gateway.openapi`."""

import json
from pathlib import Path

from fulcrum.gateway.app import create_app
from fulcrum.gateway.settings import Settings

FILE = Path(__file__).parent / "openapi.json"


def document() -> str:
    """The file's content, as the application describes itself."""
    return json.dumps(create_app(Settings.model_construct()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
