"""What a model reference stands for: configuration, preprocessing and the file of its weights."""

import difflib
import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSettings, UnknownModel
from fulcrum.domain.models import ModelRef
from fulcrum.science.vision.backend import merge_preprocess_dict, open_clip

HF_HUB = "hf-hub:"
LOCAL_DIR = "local-dir:"
CONFIG_NAME = "open_clip_config.json"

# In the order in which OpenCLIP prefers them.
_WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


@dataclass(frozen=True)
class ModelSource:
    """Everything needed to build a model. `checkpoint` is None for random weights and only then."""

    ref: ModelRef
    config: dict[str, Any]  # OpenCLIP's model_cfg
    preprocess: dict[str, Any]  # what the source says about preprocessing; OpenCLIP's defaults fill the rest
    checkpoint: Path | None
    folder: Path | None = None  # of a `local-dir:` reference: where its tokenizer files lie


def resolve(ref: ModelRef) -> ModelSource:
    """Finds configuration and weights; fetches for tags and `hf-hub:` references, never for random weights.

    Raises UnknownModel (no such architecture, tag, folder or checkpoint, or it cannot be fetched),
    CorruptCheckpoint (an unreadable configuration) and InvalidSettings (random weights and weights at once).
    """
    if ref.random_weights and ref.pretrained is not None:
        raise InvalidSettings(
            f"model {ref.model_name!r}: random_weights and pretrained={ref.pretrained!r} exclude each other"
        )
    if ref.model_name.startswith(LOCAL_DIR):
        return _local_dir(ref)
    if ref.model_name.startswith(HF_HUB):
        return _hf_hub(ref)
    return _by_name(ref)


def _by_name(ref: ModelRef) -> ModelSource:
    name = ref.model_name.replace("/", "-")
    names = open_clip.list_models()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
        raise UnknownModel(
            f"OpenCLIP has no architecture {ref.model_name!r}; close to it: {', '.join(near) or 'none'}. "
            f"Allowed are its {len(names)} names, '{HF_HUB}<owner>/<name>' and '{LOCAL_DIR}<folder>'"
        )
    config = deepcopy(open_clip.get_model_config(name))
    if ref.random_weights:
        return ModelSource(ref, config, {}, None)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if ref.pretrained is None:
        raise UnknownModel(
            f"model {name!r} was asked for without weights: name a pretrained tag "
            f"({', '.join(tags) or 'it has none'}), or the path of a checkpoint, "
            "or ask explicitly for random weights"
        )
    tag = open_clip.get_pretrained_cfg(name, ref.pretrained)
    if tag:
        if bool(tag.get("quick_gelu", False)) != bool(config.get("quick_gelu", False)):
            # OpenCLIP only warns, and the wrong activation gives plausible, worse numbers.
            other = name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"
            raise UnknownModel(
                f"the weights {ref.pretrained!r} of {name!r} were trained with another GELU than this "
                f"architecture has; use {other!r} with them"
            )
        try:
            checkpoint = Path(open_clip.download_pretrained(tag))
        except Exception as error:  # the clients below raise whatever their network library does
            raise UnknownModel(
                f"the weights {ref.pretrained!r} of {name!r} could not be fetched: {error}"
            ) from error
        return ModelSource(ref, config, dict(tag), checkpoint)
    checkpoint = Path(ref.pretrained)
    if not checkpoint.is_file():
        raise UnknownModel(
            f"{ref.pretrained!r} is neither a checkpoint file nor a pretrained tag of {name!r} "
            f"({', '.join(tags) or 'it has none'})"
        )
    return ModelSource(ref, config, {}, checkpoint)


def _local_dir(ref: ModelRef) -> ModelSource:
    folder = Path(ref.model_name.removeprefix(LOCAL_DIR))
    if not folder.is_dir():
        raise UnknownModel(f"model folder {str(folder)!r} does not exist")
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise UnknownModel(f"model folder {str(folder)!r} holds no {CONFIG_NAME}")
    config, preprocess = _read_config(path)
    if ref.random_weights:
        return ModelSource(ref, config, preprocess, None, folder)
    return ModelSource(ref, config, preprocess, _checkpoint_of(ref) or _only_weights(folder), folder)


def _hf_hub(ref: ModelRef) -> ModelSource:
    from huggingface_hub import hf_hub_download  # comes with OpenCLIP; slow to import, so only here

    repo = ref.model_name.removeprefix(HF_HUB)
    try:
        path = Path(hf_hub_download(repo, CONFIG_NAME, local_files_only=ref.random_weights))
    except Exception as error:  # the client raises whatever its network library does
        raise UnknownModel(f"no configuration of {ref.model_name!r} could be had: {error}") from error
    config, preprocess = _read_config(path)
    if ref.random_weights:
        return ModelSource(ref, config, preprocess, None)
    checkpoint = _checkpoint_of(ref)
    if checkpoint is None:
        try:
            checkpoint = Path(open_clip.pretrained.download_pretrained_from_hf(repo))
        except Exception as error:
            raise UnknownModel(f"the weights of {ref.model_name!r} could not be fetched: {error}") from error
    return ModelSource(ref, config, preprocess, checkpoint)


def _checkpoint_of(ref: ModelRef) -> Path | None:
    """Other weights for a configuration from a folder or hub; OpenCLIP would ignore `pretrained` there."""
    if ref.pretrained is None:
        return None
    path = Path(ref.pretrained)
    if not path.is_file():
        raise UnknownModel(
            f"pretrained={ref.pretrained!r} with {ref.model_name!r}: such a reference brings its own "
            "weights, and besides it only the path of an existing checkpoint is allowed"
        )
    return path


def _only_weights(folder: Path) -> Path:
    for name in _WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".pth", ".pt"})
    if len(found) != 1:
        raise UnknownModel(
            f"model folder {str(folder)!r} must hold one checkpoint, or one with a name of "
            f"{', '.join(_WEIGHT_NAMES)}; found: {', '.join(p.name for p in found) or 'none'}"
        )
    return found[0]


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        if not all(isinstance(config[key], kind) for key, kind in _CONFIG_KEYS.items()):
            raise TypeError(f"model_cfg must hold {', '.join(_CONFIG_KEYS)}")
        preprocess = merge_preprocess_dict({}, content.get("preprocess_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpoint(
            f"{path.name} of the model is not an OpenCLIP configuration: {error!r}"
        ) from error
    return config, preprocess


_CONFIG_KEYS: dict[str, type] = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
