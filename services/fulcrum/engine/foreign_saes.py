"""SAEs in the layouts of other trainers, as ours. SAELens's own is the one that we write (`storage`).

Their files name model and hook point each in a way of its own, or not at all, so whoever imports says both.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig, UnknownSae
from fulcrum.domain.models import Variant
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.variants import build_sae
from fulcrum.science.vision.checkpoints import read_state_dict


@dataclass(frozen=True)
class _Found:
    """An SAE without a place: weights under our names."""

    variant: Variant
    weights: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Files by which a layout is known, and its reader."""

    config_file: str
    weights_file: str
    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], _Found]


def read_foreign(
    folder: Path, hook_point: str, model_name: str, model_sha256: str, preprocess_sha256: str
) -> Sae:
    """The SAE of a folder in one of `LAYOUTS`, in float32 on the CPU, without gradients. No code of a file is run.

    Raises UnknownSae for other folders, CorruptCheckpoint, InvalidSaeConfig for what our variants cannot express.
    """
    layout = layout_of(folder)
    try:
        cfg = json.loads((folder / layout.config_file).read_text())
    except ValueError as error:
        raise CorruptCheckpoint(f"{layout.config_file} is not JSON: {error}") from error
    if not isinstance(cfg, dict):
        raise CorruptCheckpoint(f"{layout.config_file} holds {type(cfg).__name__}, expected an object")
    tensors = {name: tensor.float() for name, tensor in read_state_dict(folder / layout.weights_file).items()}
    found = layout.read(cfg, tensors)
    d_sae, d_in = found.weights["W_dec"].shape
    config = SaeConfig(
        found.variant,
        d_in,
        d_sae,
        hook_point,
        model_name,
        model_sha256,
        preprocess_sha256,
        found.options,
    )
    sae = build_sae(config).requires_grad_(False)
    expected = {name: value.shape for name, value in sae.state_dict().items()}
    weights = found.weights | {"norm_mean": sae.norm_mean, "norm_scale": sae.norm_scale}
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise CorruptCheckpoint(f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}")
        if not torch.isfinite(weights[name]).all():
            raise CorruptCheckpoint(f"{name} holds nan or inf")
    sae.load_state_dict(weights, strict=True)
    return sae.eval()


def layout_of(folder: Path) -> Layout:
    """Raises UnknownSae for a folder in none of them."""
    for layout in LAYOUTS.values():
        if (folder / layout.config_file).is_file() and (folder / layout.weights_file).is_file():
            return layout
    known = "; ".join(f"{name}: {x.config_file} and {x.weights_file}" for name, x in LAYOUTS.items())
    raise UnknownSae(f"{folder} holds no SAE in a layout that is known here ({known})")


def _sparsify(cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> _Found:
    """`eai-sparsify`: TopK of `relu(W (x - b_dec) + b)`."""
    for name in ("transcode", "skip_connection"):
        if cfg.get(name):
            raise InvalidSaeConfig(f"{name}=true: a transcoder predicts something other than what it reads")
    activation = cfg.get("activation", "topk")
    if activation != "topk":
        raise InvalidSaeConfig(f"activation={activation!r} is not supported; allowed is 'topk'")
    weights = _taken(
        tensors, {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    )
    return _Found("topk", weights | {"W_enc": weights["W_enc"].T}, {"k": _whole(cfg, "k")})


def _dictionary_learning(cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> _Found:
    """`dictionary-learning`, by the class that its configuration names."""
    found = cfg.get("trainer")
    trainer: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = trainer.get("dict_class")
    linear = {"W_enc": "encoder.weight", "W_dec": "decoder.weight", "b_enc": "encoder.bias", "b_dec": "b_dec"}
    plain = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    match kind:
        case "AutoEncoder":
            return _Found("relu", _turned(_taken(tensors, linear | {"b_dec": "bias"})))
        case "AutoEncoderNew":
            weights = _turned(_taken(tensors, linear | {"b_dec": "decoder.bias"}))
            return _Found("relu", _not_subtracted(weights))
        case "AutoEncoderTopK":
            return _Found("topk", _turned(_taken(tensors, linear)), {"k": _whole(trainer, "k")})
        case "BatchTopKSAE":
            weights = _turned(_taken(tensors, linear | {"theta": "threshold"}))
            return _Found("batch_topk", _at_least_zero(weights, "theta"), {"k": _whole(trainer, "k")})
        case "MatryoshkaBatchTopKSAE":
            weights = _taken(tensors, plain | {"theta": "threshold", "sizes": "group_sizes"})
            sizes = weights.pop("sizes")
            options = {"k": _whole(trainer, "k"), "prefixes": [int(n) for n in sizes.cumsum(0)]}
            return _Found("matryoshka", _at_least_zero(weights, "theta"), options)
        case "JumpReluAutoEncoder":
            weights = _not_subtracted(_taken(tensors, plain | {"threshold": "threshold"}))
            return _Found("jumprelu", _at_least_zero(weights, "threshold"))
        case "GatedAutoEncoder":
            names = linear | {"b_enc": "gate_bias", "b_dec": "decoder_bias"}
            return _Found("gated", _turned(_taken(tensors, names | {"r_mag": "r_mag", "b_mag": "mag_bias"})))
        case _:
            raise InvalidSaeConfig(f"trainer.dict_class={kind!r} is not supported")


LAYOUTS: dict[str, Layout] = {
    "eai-sparsify": Layout("cfg.json", "sae.safetensors", _sparsify),
    "dictionary-learning": Layout("config.json", "ae.pt", _dictionary_learning),
}


def _taken(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Their tensors under our names. Raises CorruptCheckpoint for one that is missing."""
    missing = sorted(set(names.values()) - set(tensors))
    if missing:
        raise CorruptCheckpoint(f"tensors {missing} are missing; found {sorted(tensors)}")
    return {ours: tensors[theirs] for ours, theirs in names.items()}


def _turned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of `nn.Linear`, which are (outputs, inputs)."""
    return weights | {name: weights[name].T for name in ("W_enc", "W_dec")}


def _not_subtracted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours always subtracts b_dec from what it reads: its share is given back through the encoder's bias."""
    return weights | {"b_enc": weights["b_enc"] + weights["b_dec"] @ weights["W_enc"]}


def _at_least_zero(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A threshold below zero, as before a first batch, is one of zero: they rectify before they compare."""
    return weights | {name: weights[name].clamp(min=0.0)}


def _whole(cfg: Mapping[str, Any], name: str) -> int:
    value = cfg.get(name)
    if type(value) is not int or value < 1:
        raise InvalidSaeConfig(f"{name}={value!r} must be a whole number of at least 1")
    return value
