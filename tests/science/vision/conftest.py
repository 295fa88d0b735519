"""Models small enough for tests."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulcrum.domain.models import ModelRef
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.loading import load_model

from .small_models import TINY, randomise


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a configuration as a `local-dir:` folder."""

    def write(config: dict[str, Any], preprocess: dict[str, Any] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("model")
        content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        (folder / "bytes.txt.gz").write_bytes(gzip.compress(b"#version"))  # no merges
        return folder

    return write


@pytest.fixture(scope="session")
def load_random(folder_of: Callable[..., Path]) -> Callable[..., LoadedModel]:
    """Loads a configuration with random weights, none of them neutral."""

    def load(config: dict[str, Any], preprocess: dict[str, Any] | None = None) -> LoadedModel:
        loaded = load_model(ModelRef(f"local-dir:{folder_of(config, preprocess)}", random_weights=True))
        randomise(loaded.model)
        return loaded

    return load


@pytest.fixture(scope="session")
def tiny(load_random: Callable[..., LoadedModel]) -> LoadedModel:
    """A CLIP of three blocks on images of 32 pixels."""
    return load_random(TINY)
