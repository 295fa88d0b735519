"""Which gateway and which token: from the arguments, the environment, or the file that `fulcrum up` writes."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fulcrum.domain.errors import InvalidSettings

URL_VARIABLE = "FULCRUM_CLIENT_URL"
TOKEN_VARIABLE = "FULCRUM_CLIENT_TOKEN"
FILE_VARIABLE = "FULCRUM_CLIENT_FILE"

_LOGIN = re.compile(r"[0-9A-Za-z_.-]{0,200}")  # nothing that could begin another cookie or header


@dataclass(frozen=True)
class Address:
    """Where the gateway answers and who asks. The token stays out of `repr`, logs and tracebacks."""

    url: str
    token: str | None = None
    login: str | None = None  # of a browser: the value of its session cookie, in place of a token

    def __post_init__(self) -> None:
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token):
            raise InvalidSettings(
                "the token holds characters that no token has, such as a line break or a space"
            )
        if self.login is not None and not _LOGIN.fullmatch(self.login):
            raise InvalidSettings("the login holds characters that no session cookie of a gateway has")

    def __repr__(self) -> str:
        token, login = ("set" if secret else None for secret in (self.token, self.login))
        return f"Address(url={self.url!r}, token={token}, login={login})"


def client_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file that `fulcrum up` writes: `FULCRUM_CLIENT_FILE`, or `~/.fulcrum/client.json`."""
    environ = os.environ if environ is None else environ
    return Path(environ.get(FILE_VARIABLE) or Path.home() / ".fulcrum" / "client.json")


def find_address(
    url: str | None = None, token: str | None = None, environ: Mapping[str, str] | None = None
) -> Address:
    """The address in order of: arguments, environment, file. Raises InvalidSettings where none says a URL.

    A token is only ever taken from a place that names the same gateway or none: one gateway's token is
    never shown to another.
    """
    environ = os.environ if environ is None else environ
    chosen = clean_url(url) if url else None
    in_environment = environ.get(URL_VARIABLE)
    if chosen is None and in_environment:
        chosen = clean_url(in_environment)
    if token is None and (not in_environment or chosen == clean_url(in_environment)):
        token = environ.get(TOKEN_VARIABLE) or None
    if chosen is not None and token is not None:
        return Address(chosen, token)
    written = _read(client_file(environ))
    if written is None:
        if chosen is None:
            raise InvalidSettings(
                f"no gateway is named: start `fulcrum up`, pass url=..., or set {URL_VARIABLE} and {TOKEN_VARIABLE}"
            )
        return Address(chosen, token)
    if chosen is not None and chosen != written.url:
        return Address(chosen, token)
    return Address(written.url, token or written.token)


class Connection:
    """The present address. One that came from a file is read again when it stops working: each `fulcrum up`
    writes a new token, and a notebook need not notice.
    """

    def __init__(self, url: str | None = None, token: str | None = None, login: str | None = None) -> None:
        self._given = (url, token)
        self._login = login
        self.address = find_address(url, token) if login is None else _as_visitor(url, token, login)

    def renew(self) -> bool:
        """Looks again; True where something changed."""
        if self._login is not None:
            return False
        try:
            found = find_address(*self._given)
        except InvalidSettings:
            return False
        changed = found != self.address
        self.address = found
        return changed


def _as_visitor(url: str | None, token: str | None, login: str) -> Address:
    """Whoever's login it is and nobody else: no token of this machine stands in for a login, not even an empty one."""
    if url is None:
        raise InvalidSettings("a login belongs to one gateway: pass its url")
    if token is not None:
        raise InvalidSettings("pass a token or a login, not both")
    return Address(clean_url(url), login=login)


def clean_url(url: str) -> str:
    """`http(s)://host[:port][/prefix]` without a slash at the end. Raises InvalidSettings for anything else."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidSettings(
            f"the gateway's URL is {url!r}: expected http://HOST:PORT or https://HOST, without query"
        )
    if parts.username or parts.password:
        raise InvalidSettings("the gateway's URL holds a user or password: pass a token instead")
    return url.strip().rstrip("/")


def _read(path: Path) -> Address | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Address(clean_url(content["url"]), content.get("token"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidSettings(
            f"{str(path)!r} cannot be read as {{'url', 'token'}} ({type(error).__name__}): "
            "`fulcrum up` writes it anew"
        ) from error
