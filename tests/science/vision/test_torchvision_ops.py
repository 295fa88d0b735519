"""Importing torchvision where its compiled part does not fit torch."""

import subprocess
import sys
from pathlib import Path

from fulcrum.science.vision.torchvision_ops import declare_missing_torchvision_ops

PROGRAM = """
import pathlib, sys, torch
from fulcrum.science.vision.torchvision_ops import declare_missing_torchvision_ops

def import_fails():  # what torchvision does when it is imported
    try:
        torch.library.register_fake("torchvision::nms", lambda dets, scores, iou_threshold: dets)
    except RuntimeError as error:
        return "does not exist" in str(error)
    return False

assert import_fails()
assert declare_missing_torchvision_ops(pathlib.Path(sys.argv[1])) is True
assert not import_fails()
"""


def test_nothing_is_declared_where_torchvision_loads() -> None:
    """Operators that exist must keep their own schemas and kernels."""
    assert declare_missing_torchvision_ops() is False


def test_schemas_are_declared_where_the_library_cannot_be_loaded(tmp_path: Path) -> None:
    """In a process of its own: schemas cannot be taken back."""
    (tmp_path / "_C.so").write_bytes(b"built for another torch")
    root = str(Path(__file__).parents[3] / "services")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{PROGRAM}", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
