"""The one folder that holds everything a local platform remembers, and who may use it."""

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fulcrum.domain.errors import AlreadyRunning, CorruptFile, InvalidSettings

# sun_path holds 108 bytes on Linux and 104 on macOS, the ending zero included.
MAX_SOCKET_PATH = 103
_LONGEST_SOCKET_NAME = len("/inference.sock")
_WAIT_FOR_DYING_S = 20.0  # longer than the grace that a guard gives after the death of its supervisor


@dataclass(frozen=True)
class Secrets:
    """What the services of one folder prove themselves to each other with."""

    redis_password: str
    inference_token: str


class DataFolder:
    """An opened and locked folder: `store.sqlite`, `artifacts/`, `redis/`, `logs/`, and `run/` for what goes away.

    Use as a context manager. Raises AlreadyRunning where another supervisor (or what is left of one) uses it, and
    InvalidSettings where it cannot be one.
    """

    def __init__(self, path: Path, wait_s: float = _WAIT_FOR_DYING_S) -> None:
        self.path = path.expanduser().resolve()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("artifacts", "redis", "logs", "run"):
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(
                f"--data-dir {str(path)!r} cannot be used: {error.strerror or error}; it must be a folder that "
                "may be written to"
            ) from error
        self._owner = self.path / "run" / "owner.json"
        self.lock = self._take_lock(wait_s)
        try:
            self.sockets = self._socket_folder()
            self.secrets = self._secrets()
        except BaseException:
            os.close(self.lock)
            raise

    def __enter__(self) -> "DataFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the folder free, unless guards of this supervisor still hold it."""
        if self.lock < 0:
            return
        self._owner.unlink(missing_ok=True)
        self._remove_sockets()
        os.close(self.lock)
        self.lock = -1

    @property
    def database_url(self) -> str:
        """SQLite file of the records."""
        return f"sqlite:///{quote(str(self.path / 'store.sqlite'))}"

    @property
    def artifacts_url(self) -> str:
        """Folder of the content-addressed artifacts."""
        # Quoted: a `#` or `?` in the folder's name would end the path, and records would lie somewhere else.
        return f"file://{quote(str(self.path / 'artifacts'))}"

    def socket(self, name: str) -> Path:
        """Where a service listens; short enough for a socket's name."""
        return self.sockets / f"{name}.sock"

    def set_owner(self, url: str | None) -> None:
        """Says who uses the folder, for the message that a second one gets."""
        _write_private(self._owner, json.dumps({"pid": os.getpid(), "url": url}))

    def owner(self) -> dict[str, object]:
        """Who uses, or used, the folder; empty where nobody said so."""
        return read_owner(self.path)

    def _take_lock(self, wait_s: float) -> int:
        # flock and not a file with a pid: the kernel gives it free in every kind of death, and guards that still
        # end their children keep it through the descriptor that they inherited.
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                owner = self.owner()
                alive = _is_alive(owner.get("pid"))
                if alive or time.monotonic() > deadline:
                    os.close(descriptor)
                    raise AlreadyRunning(self._refusal(owner, alive)) from None
                time.sleep(0.1)  # killed a moment ago: its services are being ended
            except OSError as error:
                os.close(descriptor)
                raise InvalidSettings(
                    f"--data-dir {str(self.path)!r} cannot be locked ({error.strerror}): take a folder on a local "
                    "disk"
                ) from error

    def _refusal(self, owner: dict[str, object], alive: bool) -> str:
        who = f"process {owner['pid']}" if alive else "a process that does not say its number"
        where = f", serving {owner['url']}" if owner.get("url") else ""
        return (
            f"Fulcrum already runs on {str(self.path)!r} ({who}{where}): stop it first, or take another folder "
            "with --data-dir"
        )

    def _socket_folder(self) -> Path:
        note = self.path / "run" / "sockets"
        self._remove_sockets()  # of a supervisor that was killed
        wanted = self.path / "run"
        # Addresses are lists and URLs too: a comma or a blank in one would mean something else.
        plain = re.fullmatch(r"[\w./+-]+", str(wanted), re.ASCII) is not None
        if plain and len(os.fsencode(wanted)) + _LONGEST_SOCKET_NAME <= MAX_SOCKET_PATH:
            return wanted
        # mkdtemp: private to this user, and nobody can have made it before.
        folder = Path(tempfile.mkdtemp(prefix="fulcrum-"))
        if len(os.fsencode(folder)) + _LONGEST_SOCKET_NAME > MAX_SOCKET_PATH:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="fulcrum-", dir="/tmp"))
        note.write_text(str(folder))
        return folder

    def _remove_sockets(self) -> None:
        note = self.path / "run" / "sockets"
        for left in (self.path / "run").glob("*.sock"):
            left.unlink(missing_ok=True)
        if note.exists():
            folder = Path(note.read_text())
            if folder.name.startswith("fulcrum-") and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            note.unlink()

    def _secrets(self) -> Secrets:
        path = self.path / "secrets.json"
        if not path.exists():
            made = {"redis_password": secrets.token_urlsafe(32), "inference_token": secrets.token_urlsafe(32)}
            _write_private(path, json.dumps(made))
        try:
            content = json.loads(path.read_text())
            return Secrets(str(content["redis_password"]), str(content["inference_token"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFile(
                f"{str(path)!r} is damaged ({error}): delete it, new secrets are made at the next start"
            ) from error


def read_owner(folder: Path) -> dict[str, object]:
    """Who uses, or used, this data folder: `pid` and `url`; empty where nobody does or it cannot be read."""
    try:
        content = json.loads((folder / "run" / "owner.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_client_file(path: Path, url: str, token: str) -> None:
    """Where `fulcrum.client` finds this platform when it is told nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(path, json.dumps({"url": url, "token": token}) + "\n")


def _write_private(path: Path, text: str) -> None:
    """Readable by this user alone from the first moment on; whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
