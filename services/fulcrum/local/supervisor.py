"""Keeps a set of processes alive: health-gated start, restart with back-off, clean stop."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.local.child import ChildSpec, Running
from fulcrum.local.logs import LogFolder

State = Literal["waiting", "starting", "ready", "unhealthy", "restarting", "stopping", "stopped", "failed"]

_POLL_S = 0.1
_N_START_FAILURES = 3  # before it was ready once; afterwards it is tried for ever
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_MAX_GRACE_S = 10.0
_STEADY_S = 60.0  # alive for so long: the next failure counts as the first


@dataclass(frozen=True)
class ChildStatus:
    """A line of the status table. `since` is monotonic time; `note` says what is being waited for, or why it failed."""

    name: str
    state: State
    since: float
    pid: int | None = None
    n_restarts: int = 0
    note: str = ""
    detail: str = ""


class Supervisor:
    """`start`, `wait_ready`, then `stop`; each child is watched by a thread of its own."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        logs: LogFolder,
        env: Mapping[str, str],
        *,
        lock: int | None = None,
        on_change: Callable[[tuple[ChildStatus, ...]], None] | None = None,
    ) -> None:
        self._logs, self._env, self._lock_descriptor = logs, env, lock
        self._on_change = on_change or (lambda _: None)
        self._stopping, self._killing = threading.Event(), False
        self._changed = threading.Condition(threading.RLock())
        self._keepers: dict[str, _Keeper] = {}
        self._status: dict[str, ChildStatus] = {}
        self._was_ready: set[str] = set()
        for spec in specs:
            self._status[spec.name] = ChildStatus(spec.name, "waiting", time.monotonic(), detail=spec.detail)
            self._keepers[spec.name] = _Keeper(self, spec)

    def start(self, *names: str) -> None:
        """Starts these children (all that were not started yet, if none is named); returns at once."""
        for name in names or tuple(self._keepers):
            if not self._keepers[name].is_alive():
                self._keepers[name].start()

    def wait_ready(self, *names: str, timeout_s: float | None = None) -> None:
        """Returns when these children (all) have been ready. Raises ServiceUnavailable with the last log lines of
        the one that could not be started, or that was not ready in time.
        """
        wanted = names or tuple(self._keepers)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._was_ready.issuperset(wanted):
                for name in wanted:
                    if self._status[name].state in ("failed", "stopped"):
                        raise ServiceUnavailable(self._obituary(self._status[name]))
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    late = next(n for n in wanted if n not in self._was_ready)
                    raise ServiceUnavailable(self._obituary(self._status[late]))
                # Never without a limit: a signal handler's exception must get its turn on every platform.
                self._changed.wait(0.5 if left is None else min(left, 0.5))

    def status(self) -> tuple[ChildStatus, ...]:
        """All children, in the order in which they were given."""
        with self._changed:
            return tuple(self._status.values())

    def stop(self) -> None:
        """Drains and ends all children, last started first, and returns when none is left. Can be called again."""
        self._stopping.set()
        for keeper in reversed(list(self._keepers.values())):
            keeper.finish()

    def kill(self) -> None:
        """Makes `stop`, running or to come, end at once: SIGKILL instead of draining. Safe in a signal handler."""
        self._killing = True

    def _set(self, name: str, **changes: object) -> None:
        with self._changed:
            old = self._status[name]
            new = replace(old, **changes)  # type: ignore[arg-type]  # fields of ChildStatus
            if new == old:
                return
            if new.state != old.state:
                new = replace(new, since=time.monotonic())
            self._status[name] = new
            if new.state == "ready":
                self._was_ready.add(name)
            self._changed.notify_all()
            everything = tuple(self._status.values())
            if new.state != old.state:
                level = {"failed": "error", "restarting": "warning", "unhealthy": "warning"}.get(
                    new.state, "info"
                )
                fields = {"pid": new.pid, "n_restarts": new.n_restarts, "note": new.note}
                shown = {k: v for k, v in fields.items() if v}
                self._logs.note("supervisor", f"{name} is {new.state}", level, **shown)
            self._on_change(everything)

    def _obituary(self, status: ChildStatus) -> str:
        lines = "\n".join(f"    {line}" for line in self._logs.tail(status.name))
        said = f"; its last words in {self._logs.path(status.name)}:\n{lines}" if lines else ""
        what = f"is {status.state}" + (f" ({status.note})" if status.note else "")
        return f"the service {status.name!r} did not start: it {what}{said}"


class _Keeper:
    """The thread that starts one child, watches it, and starts it again."""

    def __init__(self, house: Supervisor, spec: ChildSpec) -> None:
        self._house, self._spec = house, spec
        self._thread = threading.Thread(target=self._run, name=f"keeper of {spec.name}", daemon=True)
        self._may_end = threading.Event()
        self._started = False
        self._n_restarts = 0

    def start(self) -> None:
        self._started = True
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Ends the child; in the order in which the keepers are finished, so that servers outlive their clients."""
        self._may_end.set()
        if self._started:
            self._thread.join()
        else:
            self._set(state="stopped")

    def _set(self, **changes: object) -> None:
        self._house._set(self._spec.name, **changes)

    def _run(self) -> None:
        try:
            self._live()
        except Exception as error:  # no process can be started, no file opened: said instead of silently gone
            self._set(state="failed", pid=None, note=f"{type(error).__name__}: {error}")

    def _live(self) -> None:
        failures, delay_s = 0, _FIRST_DELAY_S
        if not self._wait_for_others():
            self._set(state="stopped")
            return
        while True:
            self._set(state="starting", pid=None, note="")
            # Nobody waits for the answers of a platform whose supervisor was killed, but perhaps for its folder.
            grace_s = min(self._spec.drain_s, _MAX_GRACE_S)
            running = Running(
                self._spec, self._house._env, self._house._logs, self._house._lock_descriptor, grace_s
            )
            reason = self._watch(running)
            if self._house._stopping.is_set():
                self._set(state="stopped", pid=None, note="")
                return
            alive_s = time.monotonic() - running.started_at
            was_ready = self._spec.name in self._house._was_ready
            failures = 1 if alive_s > _STEADY_S else failures + 1
            hopeless = running.exit_status in self._spec.hopeless
            if not was_ready and (hopeless or failures >= _N_START_FAILURES):
                self._set(state="failed", pid=None, note=reason)
                return
            delay_s = min(_FIRST_DELAY_S * 2 ** (failures - 1), _MAX_DELAY_S)
            self._n_restarts += 1
            note = f"{reason}; again in {delay_s:g} s"
            self._set(state="restarting", pid=None, note=note, n_restarts=self._n_restarts)
            if self._house._stopping.wait(delay_s):
                self._set(state="stopped", note="")
                return

    def _wait_for_others(self) -> bool:
        house = self._house
        with house._changed:
            while missing := [n for n in self._spec.after if n not in house._was_ready]:
                if house._stopping.is_set() or any(house._status[n].state == "failed" for n in missing):
                    return False
                self._set(note=f"for {', '.join(missing)}")
                house._changed.wait(_POLL_S)
        return not house._stopping.is_set()

    def _watch(self, running: Running) -> str:
        """Until the child has ended, by itself or because it had to; the reason in words."""
        spec, house = self._spec, self._house
        reason, healthy_at, checked_at = "", time.monotonic(), -1e9
        ready = False
        while not running.wait(_POLL_S):
            now = time.monotonic()
            if house._stopping.is_set():
                if self._may_end.is_set() or house._killing:
                    self._stop(running)
                    return ""
                continue
            if running.pid is None or now - checked_at < (spec.check_every_s if ready else _POLL_S):
                continue
            missing = spec.check()
            checked_at = time.monotonic()
            if missing is None:
                ready, healthy_at = True, checked_at
                self._set(state="ready", pid=running.pid, note="")
                continue
            self._set(state="unhealthy" if ready else "starting", pid=running.pid, note=missing)
            limit_s = spec.hung_after_s if ready else spec.start_timeout_s
            if checked_at - healthy_at > limit_s and not reason:
                reason = f"not healthy for {limit_s:g} s ({missing})"
                self._end(running)
                break
        return reason or f"it ended with {_in_words(running.exit_status)}"

    def _stop(self, running: Running) -> None:
        self._set(state="stopping", note="draining")
        self._end(running)

    def _end(self, running: Running) -> None:
        """SIGTERM, time to drain, SIGKILL."""
        running.ask_to_stop()
        deadline = time.monotonic() + self._spec.drain_s
        while not running.wait(_POLL_S):
            if time.monotonic() > deadline or self._house._killing:
                running.kill()


def _in_words(status: int | None) -> str:
    match status:
        case None:
            return "an unknown status"
        case 127:
            return "status 127: the command was not found"
        case int() if status < 0:
            return f"signal {-status}"
    return f"status {status}"
