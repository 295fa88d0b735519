"""Language models of transformers at work: loaded from this machine, with what identifies them."""

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from fulcrum.domain.errors import CorruptCheckpoint, UnknownModel
from fulcrum.science.responses.text import TextModel, load_text_model, readable_layers
from fulcrum.science.vision.checkpoints import weights_sha256


@dataclass(frozen=True)
class LanguageSource:
    """A folder of this machine, and how callers call it; with `twin_seed` random weights in the same architecture."""

    folder: str
    called: str
    twin_seed: int | None = None


@dataclass(frozen=True)
class LanguageModelInfo:
    """What a model's answers depend on besides the sentence. `layers` are those that can be read, with their units.

    `weights_sha256` is that of the float32 weights, whatever `dtype` they are run in; of random weights that of what
    they are drawn from.
    """

    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str
    layers: tuple[tuple[str, int], ...]
    device_type: str
    dtype: str

    def of_twin(self, seed: int) -> "LanguageModelInfo":
        """The same with random weights, known without drawing them."""
        return replace(self, weights_sha256=_random_sha256(self.config_sha256, seed))


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """In eval mode, on one device."""

    text: TextModel
    info: LanguageModelInfo
    size_bytes: int


def load_language_model(source: LanguageSource, device: str, dtype: torch.dtype) -> LanguageModel:
    """Fetches nothing and runs no code of the folder.

    Raises MissingDependency, CorruptCheckpoint, and UnknownModel, also for a model that does not read texts alone.
    """
    text = load_text_model(
        source.folder,
        random_weights=source.twin_seed is not None,
        seed=source.twin_seed or 0,
        called=source.called,
    )
    config_sha256 = _config_sha256(text.model.config)
    # Before it is moved: the same weights have one identity on every device.
    seed = source.twin_seed
    sha256 = weights_sha256(text.model) if seed is None else _random_sha256(config_sha256, seed)
    try:
        layers = readable_layers(text)
    except (UnknownModel, CorruptCheckpoint) as error:
        raise type(error)(f"{source.called!r}: {error}") from error
    text.model.to(device=device, dtype=dtype)
    size_bytes = sum(t.numel() * t.element_size() for t in text.model.state_dict().values())
    info = LanguageModelInfo(
        weights_sha256=sha256,
        config_sha256=config_sha256,
        tokenizer_sha256=_tokenizer_sha256(text.tokenizer),
        layers=tuple(layers.items()),
        device_type=torch.device(device).type,
        dtype=str(dtype).removeprefix("torch."),
    )
    return LanguageModel(text, info, size_bytes)


def _config_sha256(config: Any) -> str:
    """Of what the architecture is made of: not of where it lay, or what dtype its weights had there."""
    said = config.to_dict()
    for name in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        said.pop(name, None)
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _random_sha256(config_sha256: str, seed: int) -> str:
    """Which random weights they are: drawn by these versions from this seed."""
    drawn = [config_sha256, seed, str(torch.__version__), version("transformers")]
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def _tokenizer_sha256(tokenizer: Any) -> str:
    if tokenizer.is_fast:
        said = tokenizer.backend_tokenizer.to_str()
    else:  # its rules are code of transformers
        said = json.dumps([type(tokenizer).__name__, tokenizer.get_vocab()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()
