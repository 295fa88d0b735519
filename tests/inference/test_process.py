"""`python -m fulcrum.inference`, as a supervisor sees it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.inference.running import MODEL, png

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.rpc.client import RemoteEngine


def start(folder, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FULCRUM_")}
    environment |= {f"FULCRUM_INFERENCE_{k.upper()}": v for k, v in settings.items()}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fulcrum.inference"],
            env=environment
            | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


@pytest.fixture
def folder(tmp_path_factory):
    import shutil
    import tempfile
    from pathlib import Path

    short = Path(tempfile.mkdtemp(prefix="ful"))
    yield short
    shutil.rmtree(short)


def test_it_starts_answers_and_stops_cleanly(folder, task):
    process = start(
        folder,
        address=f"unix:{folder}/s",
        folders=json.dumps({"demo": str(WEIGHTS)}),
        canary_model="folder:demo/clip",
        threads="1",
    )
    try:
        with RemoteEngine(f"unix:{folder}/s") as client:
            deadline = time.monotonic() + 120
            while not client.health() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert client.health(), (folder / "log").read_text()
            assert [info.ref for info in client.list_models()] == [MODEL]
            assert client.predict(MODEL, [png()], task)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    assert {"listening", "healthy", "call", "draining", "stopped"} <= {line["event"] for line in lines}
    assert all(line["service"] == "inference" for line in lines)
    assert not (folder / "s").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"address": "0.0.0.0:0"}, "FULCRUM_INFERENCE_TOKEN"),
        ({"folders": "/not/json"}, "folders"),
        ({"max_batch_rows": "0", "dtype": "int8"}, "FULCRUM_INFERENCE_DTYPE"),
    ],
)
def test_settings_that_cannot_be_are_one_line_and_status_2(folder, settings, said):
    process = start(folder, **settings)
    try:
        assert process.wait(60) == 2
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = (folder / "log").read_text()
    assert said in text
    assert "Traceback" not in text
