"""URLs that point back to this gateway."""

from urllib.parse import urlencode, urlsplit

from fastapi import Request

from fulcrum.gateway.settings import Settings


def login_url(request: Request, settings: Settings, link: str) -> str:
    """Where a person follows a login link to."""
    base = settings.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/login?{urlencode({'link': link})}"


def after_login(request: Request, wanted: str, settings: Settings) -> str:
    """Where to go once logged in: the wanted view of the frontend, its start, or our own; never anywhere else."""
    home = frontend_url(request, settings)
    if home is None:
        return "/"
    return wanted if _is_inside(wanted, home) else f"{home}/"


def _is_inside(wanted: str, home: str) -> bool:
    if not wanted.isprintable() or "\\" in wanted:  # browsers read these otherwise than we do
        return False
    try:
        there, own = urlsplit(wanted), urlsplit(home)
    except ValueError:
        return False
    below = there.path == own.path or there.path.startswith(f"{own.path}/")
    return below and (there.scheme, there.netloc) == (own.scheme, own.netloc)


def frontend_url(request: Request, settings: Settings) -> str | None:
    """The frontend as this browser reaches it: on the host under which it sees us, unless there is a public URL."""
    if settings.frontend_url is None:
        return None
    own = urlsplit(settings.frontend_url.rstrip("/"))
    if settings.public_url is None and request.url.hostname and own.port is not None:
        host = f"[{request.url.hostname}]" if ":" in request.url.hostname else request.url.hostname
        own = own._replace(netloc=f"{host}:{own.port}")
    return own.geturl()
