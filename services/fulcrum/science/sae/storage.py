"""SAEs on disk: `sae_weights.safetensors` and `cfg.json`, readable by SAELens.

An SAE is saved with its normalisation folded into the weights, and loads that way: what is hashed, saved,
loaded and trained is the same function in the same tensors.
"""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fulcrum.domain.errors import CorruptCheckpoint, SaeDoesNotFit, UnknownSae
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.folding import fold_normalisation
from fulcrum.science.sae.saelens import from_saelens, our_metadata, to_saelens
from fulcrum.science.sae.variants import build_sae

WEIGHTS_FILE = "sae_weights.safetensors"
CONFIG_FILE = "cfg.json"


def save_sae(sae: Sae, folder: Path, quality: Mapping[str, float] | None = None) -> None:
    """Writes the SAE into `folder` (made if needed), each file atomically, the weights first.

    `quality` (FVU, L0, ...) is kept beside the configuration and read back by `read_quality`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cfg, weights = sae_files(sae, quality)
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, cfg)


def sae_files(
    sae: Sae, quality: Mapping[str, float] | None = None, header: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """The two files of an SAE, `cfg.json` and weights; `header` is kept in the weights' and read by nobody here."""
    extra = {"quality": dict(quality or {}), "weights_sha256": sae_sha256(sae)}
    cfg, tensors = to_saelens(fold_normalisation(copy.deepcopy(sae)), extra)
    weights = save_tensors(tensors, dict(header) if header else None)
    return json.dumps(cfg, indent=2, sort_keys=True).encode(), weights


def load_sae(folder: Path) -> Sae:
    """The SAE of a folder written by `save_sae` or by SAELens, in float32 on the CPU, without gradients.

    Raises UnknownSae when the files are not there, CorruptCheckpoint when a tensor is missing, unknown,
    misshapen or not finite, or when our files were changed after saving, and InvalidSaeConfig for
    configurations that we cannot represent.
    """
    cfg = read_cfg(folder)
    try:
        tensors = load_tensors((folder / WEIGHTS_FILE).read_bytes())
    except FileNotFoundError as error:
        raise UnknownSae(f"no {WEIGHTS_FILE} in {folder}") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise CorruptCheckpoint(
            f"{folder / WEIGHTS_FILE} is not a readable safetensors file: {error}"
        ) from error
    config, weights = from_saelens(cfg, tensors)
    sae = build_sae(config)
    weights |= {"norm_mean": sae.norm_mean, "norm_scale": sae.norm_scale}
    sae.load_state_dict(weights, strict=True)
    sae.requires_grad_(False)
    expected = our_metadata(cfg).get("weights_sha256")
    if expected is not None and expected != sae_sha256(sae):
        raise CorruptCheckpoint(
            f"weights in {folder} have SHA-256 {sae_sha256(sae)}, its {CONFIG_FILE} says {expected}"
        )
    return sae.eval()


def read_cfg(folder: Path) -> dict[str, Any]:
    """`cfg.json` as a dict. Raises UnknownSae or CorruptCheckpoint."""
    try:
        cfg = json.loads((folder / CONFIG_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnknownSae(f"no {CONFIG_FILE} in {folder}") from error
    except ValueError as error:
        raise CorruptCheckpoint(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(cfg, dict):
        raise CorruptCheckpoint(f"{folder / CONFIG_FILE} holds {type(cfg).__name__}, expected an object")
    return cfg


def read_quality(folder: Path) -> dict[str, float]:
    """What `save_sae` was told about quality; empty for SAEs from elsewhere."""
    quality = our_metadata(read_cfg(folder)).get("quality", {})
    return {str(name): float(value) for name, value in quality.items()}


def sae_sha256(sae: Sae) -> str:
    """SHA-256 of variant, options and weights as they are saved; equal before saving and after loading."""
    cfg, tensors = to_saelens(fold_normalisation(copy.deepcopy(sae)), {})
    digest = hashlib.sha256()
    head = {key: cfg[key] for key in ("architecture", "d_in", "d_sae")}
    head |= {key: our_metadata(cfg)[key] for key in ("variant", "options")}
    digest.update(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def check_fits(sae: Sae, d_in: int, hook_point: str, model_sha256: str) -> None:
    """Raises SaeDoesNotFit unless width, hook point and model agree, as far as the SAE states them."""
    config = sae.config
    if config.d_in != d_in:
        raise SaeDoesNotFit(f"the SAE reads d_in={config.d_in}, the model has {d_in} at {hook_point}")
    if config.hook_point and config.hook_point != hook_point:
        raise SaeDoesNotFit(f"the SAE was trained at {config.hook_point}, not at {hook_point}")
    if config.model_sha256 and config.model_sha256 != model_sha256:
        raise SaeDoesNotFit(
            f"the SAE belongs to the model with SHA-256 {config.model_sha256}, this one has {model_sha256}"
        )


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
