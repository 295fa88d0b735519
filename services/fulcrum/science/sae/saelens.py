"""SAELens's on-disk form (`cfg.json` + tensors) of an SAE, and back.

Its inference classes have no activation normalisation of their own that we use: the normalisation is folded
into the weights before saving, as SAELens does with `expected_average_only_in`. BatchTopK and Matryoshka SAEs
are JumpReLU SAEs with one common threshold there, which is how SAELens saves its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig
from fulcrum.domain.models import Dictionary, Variant
from fulcrum.science.sae.base import Sae, SaeConfig

# The key under which SAELens keeps what it does not interpret, and ours inside it.
METADATA_KEY = "fulcrum"

_ARCHITECTURE: dict[Dictionary, str] = {
    "relu": "standard",
    "topk": "topk",
    "batch_topk": "jumprelu",
    "matryoshka": "jumprelu",
    "jumprelu": "jumprelu",
    "gated": "gated",
}
# Normalisations that are one fixed affine map, folded into the saved weights.
_FOLDED_NORMALISATIONS = ("none", "expected_average_only_in", "covariance_whitening")
_GATED_NAMES = {"b_enc": "b_gate", "r_mag": "r_mag", "b_mag": "b_mag"}


def to_saelens(sae: Sae, extra: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`cfg.json` and tensors of an SAE whose normalisation is folded; `extra` is kept with our metadata."""
    config = sae.config
    tensors = {name: getattr(sae, name).detach() for name in ("W_enc", "W_dec", "b_dec")}
    match config.variant:
        case "gated":
            tensors |= {theirs: getattr(sae, ours).detach() for ours, theirs in _GATED_NAMES.items()}
        case "batch_topk" | "matryoshka":
            tensors["b_enc"] = sae.b_enc.detach()
            tensors["threshold"] = sae.get_buffer("theta").expand(config.d_sae)
        case "jumprelu":
            tensors |= {"b_enc": sae.b_enc.detach(), "threshold": sae.get_parameter("threshold").detach()}
        case _:
            tensors["b_enc"] = sae.b_enc.detach()
    cfg: dict[str, Any] = {
        "architecture": _ARCHITECTURE[config.variant],
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            # Without it SAELens takes the file for one from before 6.0 and drops the metadata.
            "sae_lens_version": "6.0.0",
            "model_name": config.model_name,
            "hook_name": config.hook_point,
            METADATA_KEY: {
                "variant": config.variant,
                "options": config.options,
                "hook_point": config.hook_point,
                "model_name": config.model_name,
                "model_sha256": config.model_sha256,
                "preprocess_sha256": config.preprocess_sha256,
                **extra,
            },
        },
    }
    if config.variant == "topk":
        cfg["k"] = config.options["k"]
        cfg["rescale_acts_by_decoder_norm"] = False
    return cfg, {name: tensor.float().cpu().contiguous().clone() for name, tensor in tensors.items()}


def from_saelens(
    cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[SaeConfig, dict[str, Tensor]]:
    """Our configuration and weights from SAELens's, whether we wrote them or SAELens did.

    Raises InvalidSaeConfig for what one affine normalisation and our variants cannot express, and
    CorruptCheckpoint where tensors are missing.
    """
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    config = _config(cfg)
    for name, shape in _expected_shapes(config).items():
        if name not in weights:
            raise CorruptCheckpoint(f"tensor {name} is missing; found {sorted(weights)}")
        if tuple(weights[name].shape) != shape:
            raise CorruptCheckpoint(f"tensor {name} has shape {tuple(weights[name].shape)}, expected {shape}")
    unknown = sorted(set(weights) - set(_expected_shapes(config)))
    if unknown:
        raise CorruptCheckpoint(f"unknown tensors {unknown} in a {config.variant} SAE")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CorruptCheckpoint(f"tensor {name} holds nan or inf")
    if config.variant == "gated":
        weights = {_to_ours(name): tensor for name, tensor in weights.items()}
    if cfg.get("rescale_acts_by_decoder_norm", False):
        norms = weights["W_dec"].norm(dim=1).clamp(min=1e-8)
        weights["W_enc"] = weights["W_enc"] * norms
        weights["b_enc"] = weights["b_enc"] * norms
        weights["W_dec"] = weights["W_dec"] / norms[:, None]
    if not cfg.get("apply_b_dec_to_input", True):
        # Ours always subtracts b_dec, so its share is given back through the encoder biases.
        shift = weights["b_dec"] @ weights["W_enc"]
        weights["b_enc"] = weights["b_enc"] + shift
        if config.variant == "gated":
            weights["b_mag"] = weights["b_mag"] + shift * weights["r_mag"].exp()
    if config.variant in ("batch_topk", "matryoshka"):
        threshold = weights.pop("threshold")
        if not (threshold == threshold[0]).all():
            raise CorruptCheckpoint(f"a {config.variant} SAE has one threshold, found several in the file")
        weights["theta"] = threshold[0].clone()
    return config, weights


def our_metadata(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What we keep in SAELens's metadata; empty for SAEs from elsewhere. Raises InvalidSaeConfig."""
    metadata = cfg.get("metadata") or {}
    ours = metadata.get(METADATA_KEY) or {} if isinstance(metadata, dict) else None
    if not isinstance(ours, dict):
        raise InvalidSaeConfig(f"metadata and metadata.{METADATA_KEY} must be objects, got {metadata!r}")
    return ours


def _to_ours(name: str) -> str:
    return "b_enc" if name == "b_gate" else name


def _config(cfg: Mapping[str, Any]) -> SaeConfig:
    ours, cfg = our_metadata(cfg), _modern(cfg)
    metadata = cfg.get("metadata") or {}
    architecture = cfg.get("architecture", "standard")
    variant: Variant = ours.get("variant") or _variant_of(architecture)
    if variant not in _ARCHITECTURE or _ARCHITECTURE[variant] != architecture:
        raise InvalidSaeConfig(f"architecture {architecture!r} does not belong to variant {variant!r}")
    normalisation = cfg.get("normalize_activations", "none")
    if normalisation not in _FOLDED_NORMALISATIONS:
        raise InvalidSaeConfig(
            f"normalize_activations={normalisation!r} is not affine; allowed: {_FOLDED_NORMALISATIONS}"
        )
    if cfg.get("reshape_activations", "none") != "none":
        raise InvalidSaeConfig(f"reshape_activations={cfg['reshape_activations']!r} is not supported")
    options = dict(ours.get("options") or {})
    if variant == "topk" and "k" not in options:
        options["k"] = cfg.get("k")
    d_in, d_sae = cfg.get("d_in"), cfg.get("d_sae")
    if type(d_in) is not int or type(d_sae) is not int:
        raise InvalidSaeConfig(f"d_in={d_in!r} and d_sae={d_sae!r} must be integers")
    return SaeConfig(
        variant=variant,
        d_in=d_in,
        d_sae=d_sae,
        hook_point=ours.get("hook_point") or metadata.get("hook_name") or "",
        model_name=ours.get("model_name") or metadata.get("model_name") or "",
        model_sha256=ours.get("model_sha256") or "",
        preprocess_sha256=ours.get("preprocess_sha256") or "",
        options=options,
    )


def _modern(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of SAELens 6 for a configuration of before 6.0 too."""
    modern = dict(cfg)
    if "metadata" not in modern:
        modern["metadata"] = {key: cfg[key] for key in ("hook_name", "model_name") if key in cfg}
    if cfg.get("activation_fn_str", cfg.get("activation_fn")) == "topk":
        modern["architecture"] = "topk"
        modern["k"] = (cfg.get("activation_fn_kwargs") or {}).get("k")
    if isinstance(cfg.get("normalize_activations"), bool):
        modern["normalize_activations"] = (
            "expected_average_only_in" if cfg["normalize_activations"] else "none"
        )
    elif cfg.get("normalize_activations") is None:
        modern["normalize_activations"] = "none"
    return modern


def _variant_of(architecture: str) -> Variant:
    match architecture:
        case "standard":
            return "relu"
        case "topk" | "jumprelu" | "gated":
            return architecture
        case _:
            allowed = sorted(set(_ARCHITECTURE.values()))
            raise InvalidSaeConfig(f"architecture {architecture!r} is not supported; allowed are {allowed}")


def _expected_shapes(config: SaeConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (config.d_in, config.d_sae),
        "W_dec": (config.d_sae, config.d_in),
        "b_dec": (config.d_in,),
    }
    if config.variant == "gated":
        return shapes | dict.fromkeys(_GATED_NAMES.values(), (config.d_sae,))
    shapes["b_enc"] = (config.d_sae,)
    if config.variant in ("jumprelu", "batch_topk", "matryoshka"):
        shapes["threshold"] = (config.d_sae,)
    return shapes
