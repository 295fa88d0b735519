"""`fulcrum up` as a person uses it: real services, real signals, and a look at the process table afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

import fulcrum
from fulcrum.local.redis_server import find_redis

SERVICES = Path(fulcrum.__file__).parents[1]
COMMAND = [sys.executable, "-c", "from fulcrum.cli.main import run; run()"]
START_TIMEOUT_S = 180


def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FULCRUM_")}
    # An absolute PYTHONPATH, one thread, and a client file that is nobody's.
    return kept | {
        "PYTHONPATH": os.pathsep.join((str(SERVICES), str(SERVICES.parent / "frontend"))),
        "OMP_NUM_THREADS": "1",
        "FULCRUM_CLIENT_FILE": str(folder / "client.json"),
    }


def start(folder: Path, *options: str, **variables: str) -> subprocess.Popen:
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            [*COMMAND, *options, "--data-dir", str(folder / "data"), "--json"],
            env=environment(folder) | variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


class Up:
    """A running `fulcrum up`."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.process = start(folder, "up", "--device", "cpu", **variables)
        line = self.process.stdout.readline()
        assert line, (folder / "stderr").read_text()
        self.said = json.loads(line)
        self.url = self.said["url"]
        self.token = json.loads((folder / "client.json").read_text())["token"]

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, word: str) -> psutil.Process:
        found = [p for p in self.family() if word in (line := words(p)) and "guard.py" not in line]
        assert len(found) == 1, found
        return found[0]

    def get(self, path: str, **options) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=10, **options)

    def me(self) -> dict:
        answer = self.get("/v1/me", headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self, number: int, timeout_s: float = 60) -> int:
        self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self.process.stdout.close()
        return status


def until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # gone in between
        return ""


def gone(processes: list[psutil.Process]) -> bool:
    return not any(lives(p) for p in processes)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # gone in between
        return False


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    # What a failed test leaves: ours are those whose command line names the folder.
    for process in psutil.process_iter():
        if str(tmp_path) in words(process):
            process.kill()


@pytest.fixture
def redis_of_the_user(tmp_path):
    socket = tmp_path / "r.sock"
    command = [find_redis().path, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", tmp_path]
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)


def test_from_an_empty_folder_to_a_served_platform_and_back_to_nothing(folder, redis_of_the_user):
    up = Up(folder)
    family = up.family()
    assert len(family) == 12  # five services behind five guards, and the worker's pool with its process
    assert up.get("/readyz").status_code == 200
    assert up.url.startswith("http://127.0.0.1:")
    me = up.me()
    assert me["is_admin"]

    # The login link of the message works, once; looking at its page uses nothing up.
    page = up.get("/login", params={"link": up.said["login_link"].partition("link=")[2]})
    assert page.status_code == 200
    link = up.said["login_link"].partition("link=")[2]
    with httpx.Client(base_url=up.url, trust_env=False, headers={"X-Fulcrum-Request": "1"}) as browser:
        assert browser.post("/v1/auth/links:redeem", json={"link": link}).status_code == 200
        assert browser.get("/v1/me").json()["id"] == me["id"]
        assert browser.post("/v1/auth/links:redeem", json={"link": link}).status_code == 401

    # Only this machine can reach it, and the only ports are those of the gateway and the frontend.
    listening = [c for p in family for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    ports = {int(up.said[name].rpartition(":")[2]) for name in ("url", "frontend_url")}
    assert {(c.laddr.ip, c.laddr.port) for c in listening} == {("127.0.0.1", port) for port in ports}

    # A second one on the folder is refused, and says by whom.
    second = start(folder, "up")
    said = json.loads(second.communicate(timeout=60)[0])
    assert second.returncode == 2
    assert said["error"]["reason"] == "ALREADY_RUNNING"
    assert f"process {up.process.pid}, serving {up.url}" in said["error"]["message"]

    # A service that is killed comes back, and the platform with it.
    for word in ("fulcrum.gateway", "redis-server"):
        killed = up.named(word)
        killed.kill()
        until(lambda killed=killed: gone([killed]))
    until(lambda: _ready(up))
    assert up.me()["id"] == me["id"]

    # Ctrl-C.
    family = up.family()
    assert up.end(signal.SIGINT) == 0
    assert gone(family)
    assert not list((folder / "data" / "run").glob("*.sock"))
    events = [
        json.loads(line) for line in (folder / "data" / "logs" / "gateway.log").read_text().splitlines()
    ]
    assert {e["service"] for e in events} == {"gateway"}
    assert (
        "supervisor | warning gateway is restarting" in (folder / "data" / "logs" / "fulcrum.log").read_text()
    )

    # The same folder again: the same people and the same data, but a new link and a new token; and with a Redis of
    # the user's own.
    again = Up(folder, FULCRUM_REDIS_URL=redis_of_the_user)
    assert len(again.family()) == 10
    assert again.said["redis"] == "of FULCRUM_REDIS_URL"
    assert again.me()["id"] == me["id"]
    assert again.said["login_link"] != up.said["login_link"]
    old = again.get("/v1/me", headers={"Authorization": f"Bearer {up.token}"})
    assert old.status_code == 401

    # kill -9 of the supervisor.
    family = again.family()
    again.end(signal.SIGKILL)
    until(lambda: gone(family), 30)


def _ready(up: Up) -> bool:
    try:
        return up.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_sigterm_during_the_start_leaves_nothing_behind(folder):
    process = start(folder, "up", "--device", "cpu")
    until(lambda: len(psutil.Process(process.pid).children(recursive=True)) >= 4)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert gone(family)


def test_a_service_that_cannot_start_is_named_with_its_last_words(folder):
    process = subprocess.Popen(
        [*COMMAND, "up", "--data-dir", str(folder / "data"), "--json"],
        env=environment(folder) | {"FULCRUM_INFERENCE_DTYPE": "float3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    error = json.loads(process.communicate(timeout=START_TIMEOUT_S)[0])["error"]
    assert process.returncode == 2
    assert error["reason"] == "SERVICE_UNAVAILABLE"
    assert "inference" in error["message"]
    assert "FULCRUM_INFERENCE_DTYPE" in error["message"]


def test_inference_alone_becomes_the_service(folder):
    socket = folder / "i.sock"
    process = subprocess.Popen(
        [*COMMAND, "inference", "--address", f"unix:{socket}", "--device", "cpu", "--json"],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    said = json.loads(process.stdout.readline())
    assert said == {"service": "inference", "pid": process.pid, "address": f"unix:{socket}"}
    until(socket.exists, START_TIMEOUT_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()


def test_the_gateway_alone_refuses_settings_that_cannot_be(folder):
    done = subprocess.run(
        [*COMMAND, "gateway", "--port", "1", "--json"],
        env=environment(folder) | {"FULCRUM_GATEWAY_SESSION_HOURS": "-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout)["service"] == "gateway"
    assert done.returncode == 2
    assert "FULCRUM_GATEWAY_SESSION_HOURS" in done.stderr


def test_a_folder_option_without_a_name_is_refused(folder):
    done = subprocess.run(
        [*COMMAND, "inference", "--folder", "/models", "--json"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "NAME=PATH" in json.loads(done.stdout)["error"]["message"]


def test_settings_that_cannot_be_are_named(folder):
    process = start(folder, "up", FULCRUM_LOCAL_PORT="eighty")
    error = json.loads(process.communicate(timeout=60)[0])["error"]
    assert process.returncode == 2
    assert error["reason"] == "INVALID_SETTINGS"
    assert "port" in error["message"]
