"""The script of the README, run as a reader runs it: with what `fulcrum up` wrote, and without torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tests.gateway.engine import DEMO_MODEL, DEMO_SAE

from fulcrum.client import Client, ModelRef

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("ten_lines.py")
BLOCKED = ("torch", "open_clip", "timm", "torchvision", "pandas", "PIL", "grpc", "sqlalchemy", "fastapi")


def test_the_script_of_ten_lines_uploads_explains_steers_and_saves(platform, tmp_path):
    token = platform.token_of(platform.admin_user)
    with Client(platform.url, token) as client:
        model = client.models.wait(client.models.create("demo", ModelRef(DEMO_MODEL)))
        client.saes.wait(client.saes.create("demo", model, DEMO_SAE))
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        (tmp_path / "client.json").write_text(json.dumps({"url": platform.url, "token": token}))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", without(BLOCKED) + SCRIPT.read_text()],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT / "services"), "FULCRUM_CLIENT_FILE": str(tmp_path / "client.json")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert re.fullmatch(r"(dog|cat|car) [\d.]+", lines[0])
        assert len([line for line in lines if re.fullmatch(r"\d+ -?[\d.e-]+ -?[\d.e-]+", line)]) == 3
        (saved,) = client.corrections.list()
        assert lines[-1] == f"without that latent {client.corrections.version(saved).sha256}"


def test_it_has_ten_lines():
    assert len([line for line in SCRIPT.read_text().splitlines() if line]) == 10


def test_every_module_of_the_sdk_imports_with_nothing_but_httpx_and_numpy():
    modules = [
        str(p.relative_to(ROOT / "services").with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for p in (ROOT / "services" / "fulcrum" / "client").rglob("*.py")
    ]
    assert len(modules) > 15
    code = without((*BLOCKED, "scipy", "pydantic", "structlog")) + "\n".join(f"import {m}" for m in modules)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT / "services")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def without(packages):
    return (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
