"""Training state on disk: one safetensors file, its numbers as JSON in the header, replaced atomically."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint
from fulcrum.science.sae.training.config import TrainConfig

CHECKPOINT_FILE = "training.safetensors"


def write_checkpoint(
    folder: Path, config: TrainConfig, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> Path:
    """Replaces the folder's checkpoint; a crash while writing, or an OSError, leaves the previous one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT_FILE
    # A worker that has lost the run without knowing may be writing, too: never into the same file.
    partial = folder / f"{CHECKPOINT_FILE}.{os.getpid()}.partial"
    header = {"config": config_digest(config), "numbers": json.dumps(numbers)}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(held, partial, header)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except SafetensorError as error:  # all that it says of a full disk
        raise OSError(f"the checkpoint {path.name} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_checkpoint(folder: Path, config: TrainConfig) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and numbers of the folder's checkpoint, None where there is none yet.

    Raises CorruptCheckpoint when the file cannot be read or belongs to another configuration.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        numbers = json.loads(header["numbers"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CorruptCheckpoint(f"{path} is not a readable training checkpoint: {error}") from error
    if header["config"] != config_digest(config):
        raise CorruptCheckpoint(f"{path} belongs to a run with another configuration; use another folder")
    return tensors, numbers


def config_digest(config: TrainConfig) -> str:
    """Identifies everything that changes the numbers of a run."""
    fields = {
        name: value for name, value in asdict(config).items() if name not in ("device", "metrics_every")
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
