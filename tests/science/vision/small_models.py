"""OpenCLIP's own configurations, shrunk where they are large."""

from copy import deepcopy
from typing import Any

import open_clip
import torch

# Text towers of the vision tests: their size only costs time.
SMALL_TEXT = {"layers": 2, "width": 64, "heads": 2, "vocab_size": 600, "context_length": 16}

TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3},
    "text_cfg": {
        "context_length": 20,
        "vocab_size": 514,  # 256 bytes, each also as the end of a word, begin and end
        "tokenizer_kwargs": {"bpe_path": "bytes.txt.gz"},
        "width": 32,
        "heads": 2,
        "layers": 3,
    },
}


def shrunk(
    name: str, vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None
) -> dict[str, Any]:
    """OpenCLIP's configuration of that name with some values replaced."""
    config = deepcopy(open_clip.get_model_config(name))
    config["vision_cfg"].update(vision or {})
    config["text_cfg"].update(text or {})
    if "multimodal_cfg" in config:
        config["multimodal_cfg"].update({"layers": 1, "width": config["text_cfg"]["width"], "heads": 2})
    return config


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """No parameter keeps a neutral value (layer scale of 1e-5, bias of 0): what is left out must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("logit_"):  # read when the model was loaded
                continue
            fan = parameter.shape[-1] if parameter.ndim > 1 else 4
            parameter.add_(torch.randn(parameter.shape, generator=generator) * fan**-0.5 * 0.5)
