"""Model references to loaded models: complete weights, or an error that names the cause."""

import threading
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fulcrum.domain.errors import UnknownModel
from fulcrum.domain.models import ModelInfo, ModelRef
from fulcrum.science.vision.backend import CLIP, CoCa, CustomTextCLIP, OpenClipModel, TimmModel
from fulcrum.science.vision.checkpoints import load_weights, weights_sha256
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.preprocessing import Preprocess
from fulcrum.science.vision.sources import ModelSource, resolve
from fulcrum.science.vision.tokenizers import PromptTokenizer
from fulcrum.science.vision.towers import hook_points_of, vision_stack

# Random weights draw from torch's global generator: two loads at once would give both other numbers.
_building = threading.Lock()


def load_model(
    ref: ModelRef, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedModel:
    """The model in eval mode with frozen weights, on the device.

    References: OpenCLIP name with pretrained tag or checkpoint path, `hf-hub:owner/name`, `local-dir:folder`.
    Random weights only where `ref.random_weights` says so; they depend on `ref.seed` alone and fetch nothing.
    `info.weights_sha256` is that of the float32 weights, so it does not depend on `device` and `dtype`.

    Raises UnknownModel (no such architecture, tag or file, or it cannot be fetched), CorruptCheckpoint
    (unreadable, incomplete, of another architecture, not finite, needs code) and InvalidSettings.
    """
    source = resolve(ref)
    with _building:
        model = _build(source)
    if source.checkpoint is not None:
        load_weights(model, source.checkpoint)
    model.eval()
    model.requires_grad_(False)
    image_size = _image_size(model)
    preprocess = Preprocess(source.preprocess, image_size)
    tokenizer = PromptTokenizer(source)
    sha256 = weights_sha256(model)
    logit_scale = float(model.logit_scale.exp().item())
    logit_bias = None if model.logit_bias is None else float(model.logit_bias.item())
    model.to(device=device, dtype=dtype)
    info = ModelInfo(
        ref=ref,
        weights_sha256=sha256,
        preprocess_sha256=preprocess.sha256,
        image_size=image_size[0],
        d_embed=int(source.config["embed_dim"]),
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        n_parameters=sum(p.numel() for p in model.parameters()),
        device=str(torch.device(device)),
        dtype=str(dtype).removeprefix("torch."),
        text_context_length=tokenizer.context_length,
        hook_points=tuple(str(point) for point in hook_points_of(model)),
        resize_mode=preprocess.config.resize_mode,
        **_tower_facts(model),
    )
    return LoadedModel(
        model=model,
        info=info,
        tokenizer=tokenizer,
        preprocess=preprocess,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        device=torch.device(device),
        dtype=dtype,
    )


def _build(source: ModelSource) -> OpenClipModel:
    """The module with random or, when a checkpoint will fill it, with uninitialised weights."""
    config = deepcopy(source.config)
    config["vision_cfg"]["timm_model_pretrained"] = False  # ImageNet weights are not the model's
    text = config["text_cfg"]
    hugging_face = "hf_model_name" in text
    if hugging_face:
        text["hf_model_pretrained"] = False
        if source.ref.random_weights:
            text["hf_model_name"] = _cached_hub_folder(text["hf_model_name"])
    if config.pop("custom_text", False) or hugging_face:
        kind: Callable[..., OpenClipModel] = CoCa if "multimodal_cfg" in config else CustomTextCLIP
    else:
        kind = CLIP
    mode = _ZeroEmpty() if source.checkpoint is None else _SkipInit()
    try:
        with torch.random.fork_rng(devices=[]), mode:
            torch.manual_seed(source.ref.seed)
            return kind(**config)
    except Exception as error:  # constructors raise whatever a wrong configuration makes them stumble over
        raise UnknownModel(
            f"the architecture of {source.ref.model_name!r} cannot be built: {error!r}"
        ) from error


def _cached_hub_folder(repo: str) -> str:
    """Where the configuration of a text tower of transformers lies on this machine; raises UnknownModel."""
    from huggingface_hub import try_to_load_from_cache  # comes with OpenCLIP; slow to import, so only here

    path = try_to_load_from_cache(repo, "config.json")
    if not isinstance(path, str):
        raise UnknownModel(
            f"the configuration of the text tower {repo!r} is not on this machine, "
            "and random weights fetch nothing"
        )
    return str(Path(path).parent)


class _SkipInit(TorchFunctionMode):
    """Leaves out random initialisation, most of the time of building, where a checkpoint fills everything."""

    _DRAWS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """In-place draws return their tensor as it is."""
        return args[0] if func in self._DRAWS else func(*args, **(kwargs or {}))


class _ZeroEmpty(TorchFunctionMode):
    """Zeroes what constructors allocate: CoCa never initialises its decoder's projection.

    Left as it was found in memory, the same seed would give another model, or NaN, each time.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """`torch.empty` becomes `torch.zeros`."""
        return (torch.zeros if func is torch.empty else func)(*args, **(kwargs or {}))


def _image_size(model: OpenClipModel) -> tuple[int, int]:
    size = model.visual.image_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _tower_facts(model: OpenClipModel) -> dict[str, Any]:
    """Zeros for a tower without residual blocks (ResNet, ConvNeXt): it can be run, and not split."""
    try:
        shape = vision_stack(model).shape
    except UnknownModel:
        kind = type(model.visual.trunk if isinstance(model.visual, TimmModel) else model.visual).__name__
        return {"n_blocks": 0, "d_model": 0, "n_tokens": 0, "grid": (0, 0), "has_cls": False, "pooling": kind}
    return {
        "n_blocks": shape.n_blocks,
        "d_model": shape.d_model,
        "n_tokens": shape.n_tokens,
        "grid": shape.grid,
        "has_cls": shape.has_cls,
        "pooling": shape.pooling,
    }
