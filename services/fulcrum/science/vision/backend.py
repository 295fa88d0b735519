"""The one place that imports OpenCLIP and timm, so that they can be imported on every installation."""

# ruff: noqa: E402 - OpenCLIP can only be imported once the missing operators are declared

import importlib.util
from pathlib import Path
from typing import Any

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
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]  # untyped in torch
        except OSError:
            continue
        return False
    library_object = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # as above
    for schema in _SCHEMAS:
        try:
            library_object.define(schema)  # type: ignore[no-untyped-call]  # as above
        except RuntimeError:  # declared already, by this function or by another package with the same problem
            continue
    _declared.append(library_object)
    return True


declare_missing_torchvision_ops()

import open_clip
import timm.models.eva as timm_eva
import timm.models.vision_transformer as timm_vit
from open_clip.coca_model import CoCa
from open_clip.convert import convert_state_dict
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import TextTransformer, VisionTransformer, text_global_pool

__all__ = [
    "CLIP",
    "CoCa",
    "CustomTextCLIP",
    "HFTextEncoder",
    "PreprocessCfg",
    "TextTransformer",
    "TimmModel",
    "VisionTransformer",
    "convert_state_dict",
    "convert_to_custom_text_state_dict",
    "declare_missing_torchvision_ops",
    "image_transform_v2",
    "merge_preprocess_dict",
    "open_clip",
    "text_global_pool",
    "timm_eva",
    "timm_vit",
]

OpenClipModel = Any  # CLIP, CustomTextCLIP or CoCa: untyped upstream
