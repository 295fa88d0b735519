import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_type_checker_sees_arguments_and_answers_of_both_clients(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--config-file", "",
         str(Path(__file__).with_name("typed_use.py"))],
        cwd=ROOT, env={"MYPYPATH": str(ROOT / "services"), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
