"""Responses of the units of an OpenCLIP model's towers to images or texts: the maximum over tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulcrum.domain.errors import ComputationFailed, InvalidInput, UnknownModel
from fulcrum.domain.hook_points import Tower
from fulcrum.domain.jobs import TokenPool, UnitSite
from fulcrum.science.vision.backend import CLIP
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.text_tower import text_stack
from fulcrum.science.vision.towers import vision_stack

__all__ = ["TowerLayer", "image_responses", "looked_at_in_images", "text_responses_of", "tower_layers"]

# By what their parts are called: blocks of OpenCLIP and of timm. What the MLP adds comes from the last module of its
# branch, behind layer scales and norms: the same numbers as at the hook point of this name.
_MLP_IN = ("c_fc", "fc1")
_MLP_ADDS = ("ls_2", "drop_path2")


@dataclass(frozen=True, eq=False)
class TowerLayer:
    """A module whose output is read: `{tower}.blocks.{block}.{site}`, with a unit for each of its outputs."""

    name: str
    module: nn.Module
    n_units: int
    batch_first: bool


def tower_layers(loaded: LoadedModel, tower: Tower, sites: Sequence[UnitSite]) -> tuple[TowerLayer, ...]:
    """Layers in the order of the model, with the values of the hook points of their names: `mlp_in` is the first
    linear layer of an MLP, before its GELU, `mlp_out` what the MLP adds to the residual stream, `resid_post` the
    stream after the block.

    Raises UnknownModel for a tower without residual blocks or with MLPs of another make, InvalidInput for no site.
    """
    if not sites:
        raise InvalidInput("name at least one site of units: resid_post, mlp_in, mlp_out")
    blocks, d_model, batch_first = _blocks(loaded, tower)
    layers = []
    for number, block in enumerate(blocks):
        for site in dict.fromkeys(sites):
            module = _module(block, site)
            n_units = module.out_features if site == "mlp_in" and isinstance(module, nn.Linear) else d_model
            layers.append(TowerLayer(f"{tower}.blocks.{number}.{site}", module, n_units, batch_first))
    return tuple(layers)


def looked_at_in_images(loaded: LoadedModel, tokens: TokenPool) -> Bool[Tensor, " n_tokens"]:
    """Which tokens of an image count. Raises InvalidInput for CLS where the tower has none."""
    shape = vision_stack(loaded.model).shape
    mask = torch.ones(shape.n_tokens, dtype=torch.bool)
    match tokens:
        case "cls":
            if not shape.has_cls:
                raise InvalidInput("tokens='cls': this tower has no CLS token")
            mask[1:] = False
        case "patches":
            mask[: shape.n_prefix_tokens] = False
        case "all":
            pass
    return mask


def image_responses(
    loaded: LoadedModel,
    layers: Sequence[TowerLayer],
    pixels: Float[Tensor, "n 3 height width"],
    looked_at: Bool[Tensor, " n_tokens"],
) -> tuple[Float[Tensor, "n n_units"], Float[Tensor, "n d_embed"]]:
    """float32 responses, layer after layer, and the embeddings, from one pass. Raises ComputationFailed for nan."""
    mask = looked_at.to(loaded.device)[None].expand(len(pixels), -1)
    return _read(layers, mask, lambda: loaded.model.encode_image(pixels.to(loaded.device, loaded.dtype)))


def text_responses_of(
    loaded: LoadedModel,
    layers: Sequence[TowerLayer],
    tokens: Int[Tensor, "n context"],
    looked_at: Bool[Tensor, "n context"],
) -> tuple[Float[Tensor, "n n_units"], Float[Tensor, "n d_embed"]]:
    """As `image_responses`, for texts; `looked_at` are the tokens of the words (`PromptTokenizer.words`)."""
    if not bool(looked_at.any(dim=1).all()):
        raise InvalidInput("a sentence has no token but special ones")
    return _read(
        layers, looked_at.to(loaded.device), lambda: loaded.model.encode_text(tokens.to(loaded.device))
    )


@torch.no_grad()
def _read(
    layers: Sequence[TowerLayer], looked_at: Tensor, run: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    found: dict[str, Tensor] = {}

    def reader(layer: TowerLayer) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            x = output.detach().float()
            x = x if layer.batch_first else x.transpose(0, 1)
            # CoCa adds a class token behind the words.
            mask = nn.functional.pad(looked_at, (0, x.shape[1] - looked_at.shape[1]))
            found[layer.name] = x.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)

        return read

    handles = [layer.module.register_forward_hook(reader(layer)) for layer in layers]
    try:
        embeddings = run().float()
    finally:
        for handle in handles:
            handle.remove()
    responses = torch.cat([found[layer.name] for layer in layers], dim=1)
    if not bool(torch.isfinite(responses).all()):
        raise ComputationFailed("responses hold nan or infinity")
    return responses, embeddings


def _blocks(loaded: LoadedModel, tower: Tower) -> tuple[Sequence[nn.Module], int, bool]:
    """Block modules, width, and whether the batch comes first."""
    model: Any = loaded.model
    if tower == "text":
        stack = text_stack(model)  # refuses towers that are not OpenCLIP's
        transformer = model.transformer if isinstance(model, CLIP) else model.text.transformer
        return list(transformer.resblocks), stack.d_model, bool(transformer.batch_first)
    shape = vision_stack(model).shape
    if hasattr(model.visual, "trunk"):
        return list(model.visual.trunk.blocks), shape.d_model, True
    transformer = model.visual.transformer
    return list(transformer.resblocks), shape.d_model, bool(transformer.batch_first)


def _module(block: nn.Module, site: UnitSite) -> nn.Module:
    if site == "resid_post":
        return block
    mlp = getattr(block, "mlp", None)
    place, names = (mlp, _MLP_IN) if site == "mlp_in" else (block, _MLP_ADDS)
    wanted: type[nn.Module] = nn.Linear if site == "mlp_in" else nn.Module
    parts = [getattr(place, name, None) for name in names]
    found = next((part for part in parts if isinstance(part, wanted)), None)
    if mlp is None or found is None:
        raise UnknownModel(
            f"blocks of type {type(block).__name__} have no plain MLP whose units could be read: ask for resid_post"
        )
    return found
