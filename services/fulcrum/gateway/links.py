"""URLs that point back to this gateway."""

from urllib.parse import urlencode

from fastapi import Request

from fulcrum.gateway.settings import Settings


def login_url(request: Request, settings: Settings, link: str) -> str:
    """Where a person follows a login link to."""
    base = settings.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/login?{urlencode({'link': link})}"
