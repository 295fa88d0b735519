"""Runs one command and ends it, with everything it started, as soon as the supervisor is gone.

The supervisor starts this file as `python -I -S guard.py CONTROL STATUS LOCK GRACE_S -- COMMAND...` in a session of its
own. CONTROL is the read end of a pipe whose only write end the supervisor holds: when the supervisor dies, however it
dies (`kill -9` included), the pipe ends, and the whole process group goes: SIGTERM, GRACE_S seconds, SIGKILL. A byte
`T` on it asks for SIGTERM to the command alone. STATUS receives the lines `pid N` and `exit CODE`. LOCK (or -1) is the
data folder's locked file: held open here, it keeps another supervisor out until the last process of this one is gone.

A pipe and not PR_SET_PDEATHSIG: that one follows the thread that started the child, reaches no grandchildren, and
exists on Linux only. Standard library only, so that a guard costs little and starts at once.
"""

import os
import select
import signal
import sys
import time


def main(arguments: list[str]) -> None:
    """Never returns: the last act is SIGKILL to the own process group, so that no straggler stays."""
    control, status, lock = (int(a) for a in arguments[:3])
    grace_s, command = float(arguments[3]), arguments[5:]
    for descriptor in (control, status, lock):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    # Handlers and not SIG_IGN: ignored signals would stay ignored in the command.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        child = os.posix_spawnp(command[0], command, os.environ)
    except OSError as error:
        _tell(status, f"failed {error.strerror}: {command[0]}")
        os._exit(127)
    _tell(status, f"pid {child}")
    _tell(status, f"exit {_watch(child, control, woken, grace_s)}")
    os.killpg(0, signal.SIGKILL)


def _watch(child: int, control: int, woken: int, grace_s: float) -> int:
    """The command's exit status (negative: the signal that ended it)."""
    listening = [control, woken]
    deadline: float | None = None
    while True:
        wait_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        ready = select.select(listening, [], [], wait_s)[0]
        done, how = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(how)
        if deadline is not None and time.monotonic() >= deadline:
            os.killpg(0, signal.SIGKILL)
        if woken in ready:
            os.read(woken, 4096)
        if control in ready:
            order = os.read(control, 1)
            if order == b"T":
                os.kill(child, signal.SIGTERM)
            elif not order:
                listening.remove(control)
                deadline = time.monotonic() + grace_s
                os.killpg(0, signal.SIGTERM)


def _tell(status: int, line: str) -> None:
    try:
        os.write(status, f"{line}\n".encode())
    except OSError:  # nobody listens any more
        return


if __name__ == "__main__":
    main(sys.argv[1:])
