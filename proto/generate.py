"""Writes the Python modules of `proto/` and their types: `python proto/generate.py [folder]`.

Without a folder they go to `services/`, where they are committed. The proto package is the Python package, so that
the imports between generated modules are right as they come.
"""

import importlib.resources
import sys
import sysconfig
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("fulcrum/rpc/v1")


def generate(into: Path) -> None:
    """Raises SystemExit with the compiler's code where a proto file is wrong."""
    scripts = Path(sysconfig.get_path("scripts"))
    with importlib.resources.as_file(importlib.resources.files("google.rpc") / "status.proto") as status:
        arguments = [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={status.parents[2]}",  # google/rpc/*.proto
            f"--proto_path={importlib.resources.files('grpc_tools') / '_proto'}",  # google/protobuf/*.proto
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={into}",
            f"--mypy_out=quiet:{into}",
            f"--grpc_python_out={into}",
            f"--mypy_grpc_out=quiet:{into}",
            *sorted(str(p) for p in (ROOT / PACKAGE).glob("*.proto")),
        ]
        code = protoc.main(arguments)
    if code:
        raise SystemExit(code)
    for path in (into / PACKAGE).glob("*_pb2_grpc.py*"):
        if path.name.partition("_pb2")[0] != "inference":  # the others hold no service: empty modules
            path.unlink()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "services")
