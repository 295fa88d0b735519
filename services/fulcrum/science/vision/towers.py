"""Which tower is split how."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import InvalidHookPoint, UnknownModel
from fulcrum.domain.hook_points import HookPoint, Tower
from fulcrum.science.vision.backend import OpenClipModel, TimmModel, VisionTransformer
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.openclip_tower import OpenClipVision
from fulcrum.science.vision.stack import BlockStack, VisionSplit, VisionStack
from fulcrum.science.vision.text_tower import TextSplit, text_stack
from fulcrum.science.vision.timm_tower import timm_stack


def vision_stack(model: OpenClipModel) -> VisionStack:
    """The blocks of the vision tower; raises UnknownModel, naming what is supported, for other towers."""
    visual = model.visual
    if isinstance(visual, VisionTransformer):
        return OpenClipVision(visual)
    if isinstance(visual, TimmModel):
        return timm_stack(visual)
    raise UnknownModel(
        f"a vision tower of type {type(visual).__name__} has no residual token stream to split; "
        "supported: OpenCLIP's VisionTransformer, and timm's VisionTransformer and Eva"
    )


def embed_images(
    model: OpenClipModel, pixels: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n d_embed"]:
    """Image embeddings, not normalised, to float tolerance those of the model itself, without work for nobody."""
    if isinstance(model.visual, VisionTransformer):
        return OpenClipVision(model.visual).encode(pixels)
    embeddings: Tensor = model.encode_image(pixels, normalize=False)
    return embeddings


def split_tower(loaded: LoadedModel, hook_point: HookPoint) -> VisionSplit:
    """The vision tower cut at the hook point (a `SplitTower`); shares the model's weights, copies nothing.

    Raises InvalidHookPoint (no such block, or a text hook point) and UnknownModel (no residual blocks).
    """
    _check_tower(hook_point, "visual")
    return VisionSplit(vision_stack(loaded.model), hook_point)


def split_text_tower(loaded: LoadedModel, hook_point: HookPoint) -> TextSplit:
    """The text tower cut at the hook point. Raises as `split_tower` does."""
    _check_tower(hook_point, "text")
    return TextSplit(text_stack(loaded.model), hook_point)


def list_hook_points(loaded: LoadedModel) -> tuple[HookPoint, ...]:
    """Every hook point of both towers, vision first; a tower that cannot be split has none."""
    return hook_points_of(loaded.model)


def hook_points_of(model: OpenClipModel) -> tuple[HookPoint, ...]:
    """As `list_hook_points`, for a model that is still being loaded."""
    stacks: dict[Tower, Callable[[OpenClipModel], BlockStack]] = {"visual": vision_stack, "text": text_stack}
    points: list[HookPoint] = []
    for tower, stack_of in stacks.items():
        try:
            stack = stack_of(model)
        except UnknownModel:
            continue
        points += [HookPoint(tower, block, site) for block in range(stack.n_blocks) for site in stack.sites]
    return tuple(points)


def _check_tower(hook_point: HookPoint, tower: Tower) -> None:
    if hook_point.tower != tower:
        raise InvalidHookPoint(
            f"hook point {hook_point} is in the {hook_point.tower} tower; '{tower}.blocks...' is needed"
        )
