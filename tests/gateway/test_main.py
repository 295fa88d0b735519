"""`python -m fulcrum.gateway` as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from fulcrum.domain.errors import InvalidSettings
from fulcrum.gateway.services import check_settings
from fulcrum.gateway.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def environment(**settings):
    chosen = {f"FULCRUM_GATEWAY_{name.upper()}": value for name, value in settings.items()}
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "services"),
        "OMP_NUM_THREADS": "1",
        **chosen,
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(**settings):
    return subprocess.Popen(
        [sys.executable, "-m", "fulcrum.gateway"],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_logs_json_and_ends_cleanly(store, empty_redis, tmp_path):
    port = free_port()
    process = start(
        port=str(port),
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=f"file://{tmp_path / 'artifacts'}",
        redis_url=empty_redis,
        inference_address=f"unix:{tmp_path / 'nobody.sock'}",
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                health = httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.TransportError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert health.status_code == 200
        assert "server" not in health.headers
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30)
        assert ready.status_code == 503
        assert ready.json()["checks"]["store"] == "ok"
        assert ready.json()["checks"]["redis"] == "ok"
        assert ready.json()["checks"]["inference"] != "ok"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert out == ""
    lines = [json.loads(line) for line in err.splitlines()]
    assert {"starting", "request"} <= {line["event"] for line in lines}
    assert all(line["service"] == "gateway" for line in lines)
    assert "Traceback" not in err


def test_settings_of_the_wrong_kind_are_told_in_words():
    process = start(port="99999", log_level="LOUD")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "FULCRUM_GATEWAY_PORT" in err
    assert "FULCRUM_GATEWAY_LOG_LEVEL" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"artifacts_url": "ftp://x/y"}, "ftp://x/y"),
        ({"database_url": "oracle://x"}, "oracle"),
        ({"redis_url": "http://x"}, "Redis"),
        ({"inference_address": ","}, "holds no address"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_start(settings, said, tmp_path):
    with pytest.raises(InvalidSettings, match=said):
        check_settings(Settings(**{"artifacts_url": f"file://{tmp_path}", **settings}))
