"""The supervisor with small real processes; what is watched here is the process table."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.local import supervisor as supervising
from fulcrum.local.child import ChildSpec
from fulcrum.local.logs import LogFolder, readable
from fulcrum.local.supervisor import Supervisor

ENV = {"PATH": "/usr/bin:/bin"}

# A server as far as a supervisor can tell: says that it is ready by a file, notes its pid, drains on SIGTERM.
SERVER = """
import os, pathlib, signal, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    with open(folder / "stopped", "a") as f: f.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / (name + ".pid")).write_text(str(os.getpid()))
(folder / (name + ".ready")).touch()
print("listening", flush=True)
while True: time.sleep(0.05)
"""


class House:
    """A folder, and supervisors on it that are stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.made = folder, LogFolder(folder / "logs"), []

    def spec(self, name: str, code: str = SERVER, **changes) -> ChildSpec:
        ready = self.folder / f"{name}.ready"
        settings = {
            "check": lambda: None if ready.exists() else "no file",
            "check_every_s": 0.1,
            "drain_s": 5.0,
            **changes,
        }
        return ChildSpec(name, (sys.executable, "-c", code, str(self.folder), name), **settings)

    def supervisor(self, *specs: ChildSpec, **options) -> Supervisor:
        self.made.append(Supervisor(specs, self.logs, ENV, **options))
        return self.made[-1]

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    for supervisor in made.made:
        supervisor.kill()
        supervisor.stop()
    made.logs.close()


def until(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def state(supervisor: Supervisor, name: str) -> str:
    return next(s.state for s in supervisor.status() if s.name == name)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_start_waits_for_health_and_stop_leaves_nothing_behind(house):
    slow = SERVER.replace("print(", "time.sleep(0.3); print(").replace(
        '(folder / (name + ".ready"))', "READY"
    )
    slow = slow.replace("READY.touch()", "").replace(
        'print("listening"', '(folder / (name + ".ready")).touch(); print("listening"'
    )
    supervisor = house.supervisor(house.spec("a", slow))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    assert (house.folder / "a.ready").exists()
    assert supervisor.status()[0].pid == house.pid("a")
    supervisor.stop()
    assert is_gone(house.pid("a"))
    assert state(supervisor, "a") == "stopped"
    assert house.text("stopped") == "a\n"


def test_a_child_waits_for_those_it_needs_and_they_outlive_it(house):
    supervisor = house.supervisor(house.spec("store"), house.spec("gateway", after=("store",)))
    supervisor.start("gateway")
    until(lambda: supervisor.status()[1].note == "for store")
    assert not (house.folder / "gateway.pid").exists()
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    supervisor.stop()
    assert house.text("stopped") == "gateway\nstore\n"


def test_a_crashed_child_is_started_again(house):
    supervisor = house.supervisor(house.spec("a"))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    first = house.pid("a")
    os.kill(first, signal.SIGKILL)
    until(lambda: state(supervisor, "a") == "ready" and supervisor.status()[0].pid != first)
    assert supervisor.status()[0].n_restarts == 1
    assert "ended with signal 9" in house.text("logs/supervisor.log")


def test_a_child_whose_guard_is_killed_is_ended_and_started_again(house):
    supervisor = house.supervisor(house.spec("a"))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    first = house.pid("a")
    psutil.Process(first).parent().kill()
    until(lambda: supervisor.status()[0].n_restarts == 1 and state(supervisor, "a") == "ready")
    assert is_gone(first)


def test_delays_between_restarts_grow(house, monkeypatch):
    monkeypatch.setattr(supervising, "_FIRST_DELAY_S", 0.1)
    seen = []
    # Ready once, then it ends at once, again and again.
    code = SERVER.replace("while True: time.sleep(0.05)", "time.sleep(0.5); sys.exit(3)")
    supervisor = house.supervisor(
        house.spec("a", code), on_change=lambda all_: seen.append((all_[0].state, all_[0].note))
    )
    supervisor.start()
    until(lambda: sum(s == "restarting" for s, _ in seen) >= 3)
    notes = [note for s, note in seen if s == "restarting"]
    assert notes[:3] == [f"it ended with status 3; again in {d} s" for d in ("0.1", "0.2", "0.4")]


def test_a_child_that_cannot_start_is_reported_with_its_last_words(house, monkeypatch):
    monkeypatch.setattr(supervising, "_FIRST_DELAY_S", 0.05)
    supervisor = house.supervisor(house.spec("a", "print('no such device: cuda:9'); raise SystemExit(2)"))
    supervisor.start()
    with pytest.raises(ServiceUnavailable, match=r"(?s)'a'.*ended with status 2.*no such device: cuda:9"):
        supervisor.wait_ready(timeout_s=15)
    assert state(supervisor, "a") == "failed"


def test_a_command_that_does_not_exist_is_said_so(house, monkeypatch):
    monkeypatch.setattr(supervising, "_FIRST_DELAY_S", 0.05)
    supervisor = house.supervisor(ChildSpec("a", ("/no/such/program",), check=lambda: None))
    supervisor.start()
    with pytest.raises(ServiceUnavailable, match="command was not found"):
        supervisor.wait_ready(timeout_s=15)


def test_a_child_that_lives_without_becoming_ready_is_not_waited_for_for_ever(house, monkeypatch):
    monkeypatch.setattr(supervising, "_FIRST_DELAY_S", 0.05)
    spec = house.spec("a", check=lambda: "still loading", start_timeout_s=0.5)
    supervisor = house.supervisor(spec)
    supervisor.start()
    with pytest.raises(ServiceUnavailable, match=r"not healthy for 0.5 s \(still loading\)"):
        supervisor.wait_ready(timeout_s=30)


def test_a_hung_child_is_ended_and_started_again(house):
    answers = {"healthy": True}
    spec = house.spec("a", check=lambda: None if answers["healthy"] else "no answer", hung_after_s=0.4)
    supervisor = house.supervisor(spec)
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    until(lambda: (house.folder / "a.pid").exists())
    first = house.pid("a")
    answers["healthy"] = False
    until(lambda: state(supervisor, "a") == "unhealthy")
    until(lambda: supervisor.status()[0].n_restarts == 1)
    answers["healthy"] = True
    until(lambda: state(supervisor, "a") == "ready" and supervisor.status()[0].pid != first)


def test_a_short_failure_of_the_health_check_restarts_nothing(house):
    answers = {"healthy": True}
    supervisor = house.supervisor(house.spec("a", check=lambda: None if answers["healthy"] else "busy"))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    answers["healthy"] = False
    until(lambda: state(supervisor, "a") == "unhealthy")
    answers["healthy"] = True
    until(lambda: state(supervisor, "a") == "ready")
    assert supervisor.status()[0].n_restarts == 0


STUBBORN = SERVER.replace(
    "signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
)

# Starts a process of its own, as a worker with a pool does, and a stubborn one at that.
PARENT = SERVER.replace(
    "print(",
    f"import subprocess; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}, str(folder), 'grandchild'])\n"
    "while not (folder / 'grandchild.pid').exists(): time.sleep(0.02)\nprint(",
)


def test_one_that_ignores_sigterm_is_killed_after_its_time_to_drain(house):
    supervisor = house.supervisor(house.spec("a", STUBBORN, drain_s=0.5))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    began = time.monotonic()
    supervisor.stop()
    assert is_gone(house.pid("a"))
    assert 0.5 <= time.monotonic() - began < 5


def test_grandchildren_go_with_their_parent(house):
    supervisor = house.supervisor(house.spec("a", PARENT))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    until(lambda: (house.folder / "grandchild.pid").exists())
    supervisor.stop()
    assert is_gone(house.pid("a"))
    assert is_gone(house.pid("grandchild"))


def test_stopping_during_the_start_ends_what_was_started(house):
    supervisor = house.supervisor(house.spec("a", check=lambda: "never ready"), house.spec("b", after=("a",)))
    supervisor.start()
    until(lambda: (house.folder / "a.pid").exists())
    supervisor.stop()
    assert is_gone(house.pid("a"))
    assert [s.state for s in supervisor.status()] == ["stopped", "stopped"]


def test_an_impatient_second_stop_kills(house):
    supervisor = house.supervisor(house.spec("a", STUBBORN, drain_s=60))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    until(lambda: state(supervisor, "a") == "stopping")
    supervisor.kill()
    stopping.join(timeout=10)
    assert not stopping.is_alive()
    assert is_gone(house.pid("a"))


def test_what_a_child_says_is_kept_as_json_lines_and_as_text(house):
    code = (
        'import json, sys\nprint(json.dumps({"timestamp": "2026-01-01T00:00:00.000Z", "level": "warning", '
        '"service": "a", "event": "slow", "ms": 7}))\nprint("plain %d text", file=sys.stderr)\n' + SERVER
    )
    supervisor = house.supervisor(house.spec("a", code))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    until(lambda: len(house.logs.tail("a")) == 3)
    supervisor.stop()
    lines = house.text("logs/a.log").splitlines()
    assert sorted('"event": "plain %d text"' in x for x in lines) == [False, False, True]
    assert any('"ms": 7' in x for x in lines)
    assert "00:00:00.000 a          | warning slow ms=7" in house.text("logs/fulcrum.log")


def test_a_stranger_s_path_forges_no_line_and_says_nothing_to_the_terminal():
    path = "/x\n12:00:00.000 gateway    | info    logged in\x1b]0;title\x07\u202e"
    text = readable({"level": "info", "event": "request", "path": path})
    assert text == (
        "info    request path=/x\\n12:00:00.000 gateway    | info    logged in\\x1b]0;title\\x07\\u202e"
    )
    assert "\n  File" in readable({"event": "x", "exception": "Traceback\n  File"})  # ours, for people


def test_a_full_disk_stops_no_child(house, monkeypatch):
    # What a child says must be read on, or it blocks on its own log line.
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("logging.StreamHandler.emit", full)
    monkeypatch.setattr("logging.handlers.RotatingFileHandler.shouldRollover", full)
    chatty = SERVER.replace('print("listening", flush=True)', 'print("x" * 1_000_000, flush=True)').replace(
        '(folder / (name + ".ready")).touch()\n', ""
    )
    chatty = chatty.replace("while True", '(folder / (name + ".ready")).touch()\nwhile True')
    supervisor = house.supervisor(house.spec("a", chatty))
    supervisor.start()
    supervisor.wait_ready(timeout_s=15)
    supervisor.stop()
    assert house.text("stopped") == "a\n"


KILLED = """
import sys, time
from pathlib import Path
from fulcrum.local.child import ChildSpec
from fulcrum.local.data_folder import DataFolder
from fulcrum.local.logs import LogFolder
from fulcrum.local.supervisor import Supervisor
folder, codes = Path(sys.argv[1]), sys.argv[2:]
data = DataFolder(folder / "data")
data.set_owner("http://127.0.0.1:1")
specs = [
    ChildSpec(name, (sys.executable, "-c", code, str(folder), name), drain_s=1.0,
              check=lambda name=name: None if (folder / (name + ".ready")).exists() else "no")
    for name, code in zip("abc", codes)
]
supervisor = Supervisor(specs, LogFolder(data.path / "logs"), {"PATH": "/usr/bin:/bin"}, lock=data.lock)
supervisor.start()
supervisor.wait_ready()
print("up", flush=True)
time.sleep(600)
"""


def killed_supervisor(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    services = Path(supervising.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), SERVER, STUBBORN, PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**ENV, "PYTHONPATH": str(services)},
    )
    assert process.stdout.readline() == "up\n"
    pids: list[int] = []
    until = time.monotonic() + 20
    # A child may be ready before the system lists what it started.
    while len(pids) < 7 and time.monotonic() < until:
        pids = [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
        time.sleep(0.05)
    if len(pids) != 7:  # three guards, three children, a grandchild
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(f"{len(pids)} processes: {pids}")
    process.kill()
    process.wait()
    process.stdout.close()
    return process, pids


def test_kill_minus_nine_of_the_supervisor_leaves_no_process_behind(tmp_path):
    _, pids = killed_supervisor(tmp_path)
    until(lambda: all(is_gone(p) for p in pids))
    assert "a" in (tmp_path / "stopped").read_text()  # those who listen were asked first


def test_the_folder_of_a_killed_supervisor_is_free_once_its_last_process_is_gone(tmp_path):
    from fulcrum.local.data_folder import DataFolder

    _, pids = killed_supervisor(tmp_path)
    with DataFolder(tmp_path / "data", wait_s=20):
        # A process that exits closes its files, the lock among them, moments before it is gone from the table.
        until(lambda: all(is_gone(p) for p in pids), timeout_s=2.0)
