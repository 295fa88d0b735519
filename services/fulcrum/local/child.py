"""One supervised process: what to run, and the running thing."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from fulcrum.local.logs import LogFolder

GUARD = Path(__file__).with_name("guard.py")
_DYING_S = 5.0  # more than the kernel needs, unless a driver holds the process

# None: healthy. Otherwise what is missing, in words for the status table. May block for a few seconds, never raises.
Check = Callable[[], str | None]


@dataclass(frozen=True)
class ChildSpec:
    """A process that the supervisor keeps alive."""

    name: str
    command: tuple[str, ...]
    check: Check
    env: Mapping[str, str] = field(default_factory=dict)  # on top of the supervisor's own
    after: tuple[str, ...] = ()  # children that must have been ready once before this one starts
    detail: str = ""  # where it listens, for the status table
    start_timeout_s: float = 120.0
    drain_s: float = 15.0  # between SIGTERM and SIGKILL
    check_every_s: float = 5.0
    hung_after_s: float = 180.0  # unhealthy for so long while alive: ended and started again
    hopeless: frozenset[int] = frozenset()  # exit statuses after which a first start is not tried again


class Running:
    """A started child, behind its guard (see `guard`)."""

    def __init__(
        self,
        spec: ChildSpec,
        env: Mapping[str, str],
        logs: LogFolder,
        lock: int | None,
        grace_s: float = 10.0,
    ) -> None:
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        passed = (control, status) if lock is None else (control, status, lock)
        arguments = [str(control), str(status), str(-1 if lock is None else lock), str(grace_s), "--"]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *arguments, *spec.command],
                env={**env, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=passed,
                start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which then drains
            )
        except BaseException:
            os.close(self._control)
            os.close(self._status)
            raise
        finally:
            os.close(control)
            os.close(status)
        self.spec = spec
        self.started_at = time.monotonic()
        self.pid: int | None = None
        self.exit_status: int | None = None
        self._told = b""
        self._closing = threading.Lock()
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        self._log = logs.follow(spec.name, stdout)

    def wait(self, timeout_s: float) -> bool:
        """True once the process has ended; `exit_status` is then known (negative: a signal). One thread only."""
        if self.exit_status is not None:
            return True
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            if not select.select([self._status], [], [], left)[0]:
                return False
            news = os.read(self._status, 4096)
            self._told += news
            *lines, self._told = self._told.split(b"\n")
            for line in lines:
                word, _, rest = line.decode("utf-8", "replace").partition(" ")
                if word == "pid":
                    self.pid = int(rest)
                elif word == "exit":
                    self.exit_status = int(rest)
                elif word == "failed":
                    self.exit_status = 127
            if self.exit_status is not None or not news:
                self._end()
                return True

    def ask_to_stop(self) -> None:
        """SIGTERM to the process."""
        with self._closing:
            if self._control >= 0:
                try:
                    os.write(self._control, b"T")
                except OSError:  # it is gone already
                    return

    def kill(self) -> None:
        """SIGKILL to the process and everything it started; `wait` then sees the end."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _end(self) -> None:
        # The guard kills its group last; where the guard itself was killed, the group is left to us.
        self.kill()
        code = self._process.wait()
        if self.exit_status is None:
            self.exit_status = code
        self._wait_for_group()
        with self._closing:
            os.close(self._control)
            self._control = -1
        os.close(self._status)
        self._log.join(timeout=5)

    def _wait_for_group(self) -> None:
        """SIGKILL is sent, not done: the next process on the same files must not meet the dying one."""
        deadline = time.monotonic() + _DYING_S
        while self._group_lives() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _group_lives(self) -> bool:
        group = self._process.pid
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        # Zombies answer signals too, until the first process of the machine collects them.
        return any(_lives_in(group, pid) for pid in psutil.pids())


def _lives_in(group: int, pid: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # gone in between
        return False
