"""The one place that imports OpenCLIP and timm, so that they can be imported on every installation."""

# ruff: noqa: E402 - OpenCLIP can only be imported once the missing operators are declared

from typing import Any

from fulcrum.science.vision.torchvision_ops import declare_missing_torchvision_ops

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
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)
from timm.layers import mlp as timm_mlp

__all__ = [
    "CLIP",
    "CoCa",
    "CustomTextCLIP",
    "HFTextEncoder",
    "PreprocessCfg",
    "ResidualAttentionBlock",
    "TextTransformer",
    "TimmModel",
    "VisionTransformer",
    "convert_state_dict",
    "convert_to_custom_text_state_dict",
    "image_transform_v2",
    "merge_preprocess_dict",
    "open_clip",
    "text_global_pool",
    "timm_eva",
    "timm_mlp",
    "timm_vit",
]

OpenClipModel = Any  # CLIP, CustomTextCLIP or CoCa: untyped upstream
