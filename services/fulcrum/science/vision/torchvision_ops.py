"""What makes `import torchvision` work beside a torch that its compiled part was not built for."""

import importlib.util
from pathlib import Path

import torch

# Schemas live as long as the library object that defined them.
_declared: list[torch.library.Library] = []

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_torchvision_ops(package: Path | None = None) -> bool:
    """Makes `import torchvision` work where its compiled part does not fit torch; True if it had to.

    A CUDA build of torchvision beside a CPU-only torch cannot load its library, and then dies on registering
    a fake kernel for `torchvision::nms`, an operator without a schema. CLIP uses none of these operators, so
    declaring their schemas is enough. Where the library loads nothing is declared.
    """
    if package is None:
        spec = importlib.util.find_spec("torchvision")
        if spec is None or spec.origin is None:
            return False
        package = Path(spec.origin).parent
    libraries = [
        p
        for name in ("_C_stable", "_C")
        for p in sorted(package.glob(f"{name}*.so")) + sorted(package.glob(f"{name}*.pyd"))
    ]
    for library in libraries:
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return False
    library_object = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        try:
            library_object.define(schema)
        except RuntimeError:  # declared already, by this function or by another package with the same problem
            continue
    _declared.append(library_object)
    return True
