"""Weights from files: tensors only, complete, finite, and hashed."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fulcrum.domain.errors import CorruptCheckpoint
from fulcrum.science.vision.backend import convert_state_dict, convert_to_custom_text_state_dict

_SHOWN = 3  # names listed in a message for each kind of problem


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors or torch file, on the cpu; no code from the file is run.

    Raises CorruptCheckpoint, also for pickles that need code and for TorchScript archives.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path, device="cpu")
        elif path.suffix in {".npz", ".npy"}:
            raise CorruptCheckpoint(f"{path.name}: NumPy checkpoints are not read; convert it to safetensors")
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CorruptCheckpoint:
        raise
    except pickle.UnpicklingError as error:
        raise CorruptCheckpoint(
            f"{path.name} is not a file of tensors (a pickle that needs code?): {_line(error)}"
        ) from error
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise CorruptCheckpoint(f"{path.name} cannot be read as a checkpoint: {_line(error)}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CorruptCheckpoint(f"{path.name} holds no named tensors, but {type(content).__name__}")
    wrong = sorted(str(k) for k, v in content.items() if not isinstance(k, str) or not isinstance(v, Tensor))
    if wrong:
        raise CorruptCheckpoint(f"{path.name} holds entries that are not tensors: {_some(wrong)}")
    if all(name.startswith("module.") for name in content):  # saved by a distributed trainer
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills every parameter and buffer of the model from the file, in place.

    Raises CorruptCheckpoint when a tensor is missing, left over, of another shape, or not finite. Position
    embeddings of another size are refused too: OpenCLIP interpolates them and calls the result the model.
    """
    state = _converted(model, read_state_dict(path), path)
    wanted = model.state_dict()
    for name in (
        "logit_scale",
        "logit_bias",
    ):  # stored as a scalar by some trainers, as one element by others
        if name in state and name in wanted and state[name].numel() == wanted[name].numel() == 1:
            state[name] = state[name].reshape(wanted[name].shape)
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "left over": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{n} {tuple(state[n].shape)} instead of {tuple(wanted[n].shape)}"
            for n in sorted(wanted.keys() & state.keys())
            if state[n].shape != wanted[n].shape
        ],
        "of another kind": [
            f"{n} {state[n].dtype}"
            for n in sorted(wanted.keys() & state.keys())
            if wanted[n].is_floating_point() and not state[n].is_floating_point()
        ],
        # A sum in float64 cannot overflow on float32 values, and is not finite if one term is not.
        "not finite": [
            n
            for n, t in state.items()
            if t.is_floating_point() and not torch.isfinite(t.sum(dtype=torch.float64))
        ],
    }
    found = [f"{len(names)} {what} ({_some(names)})" for what, names in problems.items() if names]
    if found:
        raise CorruptCheckpoint(
            f"{path.name} does not fit the model of {len(wanted)} tensors: {'; '.join(found)}"
        )
    model.load_state_dict(state, strict=True)


def weights_sha256(model: nn.Module) -> str:
    """Identity of a model: sha256 over (name, dtype, shape, bytes) of its state dict, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy())
    return digest.hexdigest()


def _converted(model: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """OpenCLIP's own translations of older and third-party names."""
    try:
        state = dict(convert_state_dict(model, state))
    except Exception as error:  # the converters index whatever they expect
        raise CorruptCheckpoint(
            f"{path.name} looks like a MobileCLIP file and is not one: {error!r}"
        ) from error
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state))
    # Written by transformers < 4.31 only, and computed since.
    position_ids = "text.transformer.embeddings.position_ids"
    if position_ids not in model.state_dict():
        state.pop(position_ids, None)
    return state


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)
