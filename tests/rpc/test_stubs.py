import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("fulcrum/rpc/v1")
COMMITTED = ROOT / "services" / PACKAGE


def test_the_committed_stubs_equal_regenerated_ones(tmp_path):
    command = [sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = {p.name: p.read_text() for p in (tmp_path / PACKAGE).iterdir()}
    committed = {p.name: p.read_text() for p in COMMITTED.glob("*_pb2*.py*")}
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []


def test_every_element_of_the_protos_has_a_comment():
    # The comments become the docstrings of the typed stubs and the text of the reference.
    silent = []
    for path in sorted((ROOT / "proto" / PACKAGE).glob("*.proto")):
        previous = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = line.strip()
            element = text and not text.startswith(("//", "}", "syntax", "package", "import"))
            if element and not previous.startswith("//"):
                silent.append(f"{path.name}:{number}: {text}")
            previous = text
    assert silent == []


def test_the_stubs_need_no_newer_protobuf_than_the_project_asks_for():
    needs = re.search(r"Protobuf Python Version: ([\d.]+)", (COMMITTED / "inference_pb2.py").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"protobuf>={needs[1]}" in str(project["optional-dependencies"]["rpc"])
    needs = re.search(r"GENERATED_VERSION = '([\d.]+)'", (COMMITTED / "inference_pb2_grpc.py").read_text())
    assert f"grpcio>={needs[1]}" in str(project["optional-dependencies"]["rpc"])
