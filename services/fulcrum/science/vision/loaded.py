"""A loaded model as the rest of science sees it."""

from dataclasses import dataclass
from typing import Literal

import torch

from fulcrum.domain.models import ModelInfo
from fulcrum.science.vision.backend import OpenClipModel
from fulcrum.science.vision.preprocessing import Preprocess
from fulcrum.science.vision.tokenizers import PromptTokenizer


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """An OpenCLIP model in eval mode, frozen, on one device; made by `load_model` only."""

    model: OpenClipModel
    info: ModelInfo
    tokenizer: PromptTokenizer
    preprocess: Preprocess
    logit_scale: float  # already exponentiated: what cosines are multiplied by
    logit_bias: float | None
    device: torch.device
    dtype: torch.dtype

    @property
    def probs_kind(self) -> Literal["softmax", "sigmoid"]:
        """Sigmoid for models trained with a sigmoid loss, which are those with a logit bias."""
        return "softmax" if self.logit_bias is None else "sigmoid"
