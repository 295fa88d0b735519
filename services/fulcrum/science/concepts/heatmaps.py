"""Where in an image a latent is stored, and what in the image causes it.

All maps are batch first, signed, and in the latent's own units; positive means "here is the latent" or "this
makes it fire". `normalised` is the one convention for showing them: divided by the largest magnitude, so that
0 stays 0 and the sign stays the sign.
"""

from typing import Literal

import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from fulcrum.domain.errors import ComputationFailed, InvalidInput, LatentOutOfRange
from fulcrum.science.sae.base import Sae
from fulcrum.science.vision.split import SplitTower

Reduce = Literal["max", "sum"]


def stored_map(
    z: Float[Tensor, "batch tokens"], grid: tuple[int, int], has_cls: bool
) -> Float[Tensor, "batch grid_height grid_width"]:
    """`z[p, j]` over the patch grid: where the code is stored, not what caused it. CLS is left out.

    Raises InvalidInput when the tokens are not CLS (where there is one) and the patches of the grid.
    """
    height, width = grid
    if z.ndim != 2 or z.shape[1] != height * width + has_cls:
        raise InvalidInput(
            f"z of shape {tuple(z.shape)} is not (batch, {height * width + has_cls}): "
            f"{'CLS and ' if has_cls else ''}the patches of a {height} x {width} grid"
        )
    return z[:, int(has_cls) :].reshape(-1, height, width)


def gradient_x_input(
    tower: SplitTower,
    sae: Sae,
    images: Float[Tensor, "batch 3 height width"],
    latent: int,
    reduce: Reduce = "max",
    baseline: Float[Tensor, " 3"] | None = None,
) -> Float[Tensor, "batch height width"]:
    """`sum over channels of (image - baseline) * dz_j/dimage`, z_j the image's maximum or sum over tokens.

    A first-order estimate of what each pixel adds against the baseline colour; all zero where the latent does
    not fire. `baseline` is in units of the preprocessed image; None is 0, the mean colour of the
    preprocessing. Raises ComputationFailed when the tower's prefix does not let gradients through.
    """
    baseline_image = _colour(baseline, images)
    _check_latent(latent, sae)
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_(True)
        z = _activation(tower, sae, pixels, latent, reduce)
        gradient = torch.autograd.grad(z.sum(), pixels, allow_unused=True)[0] if z.requires_grad else None
    if gradient is None:
        # A prefix under no_grad would give a map of zeros, which looks like "no pixel matters".
        raise ComputationFailed(
            "the prefix of this tower runs without gradients: gradient-x-input needs them"
        )
    maps = ((images - baseline_image) * gradient).sum(dim=1)
    if not bool(torch.isfinite(maps).all()):
        raise ComputationFailed(f"the gradient of latent {latent} with respect to the image is not finite")
    return maps.detach()


@torch.no_grad()
def occlusion(
    tower: SplitTower,
    sae: Sae,
    images: Float[Tensor, "batch 3 height width"],
    latent: int,
    window: int = 1,
    reduce: Reduce = "max",
    fill: Float[Tensor, " 3"] | None = None,
    chunk: int = 64,
) -> Float[Tensor, "batch grid_height grid_width"]:
    """How much z_j (maximum or sum over tokens) drops when a patch is painted over; negative: it rises.

    `window` patches squared are painted at a time, at every place of the grid; a patch gets the mean drop of
    the windows that cover it. `fill` is in units of the preprocessed image; None is 0, its mean colour. Up to
    `chunk` painted images run at once; the cost is one prefix per place.
    """
    colour = _colour(fill, images)
    _check_latent(latent, sae)
    height, width = tower.grid
    if not 1 <= window <= min(height, width):
        raise InvalidInput(f"window={window} must lie in 1 .. {min(height, width)} (patches)")
    if chunk < 1:
        raise InvalidInput(f"chunk={chunk} must be >= 1")
    # A patch is this large; what the division leaves over at the right and lower edge no patch reads.
    patch_height, patch_width = images.shape[2] // height, images.shape[3] // width
    if patch_height < 1 or patch_width < 1:
        raise InvalidInput(
            f"images of {tuple(images.shape[2:])} pixels are smaller than the {tower.grid} grid"
        )
    places = [(r, c) for r in range(height - window + 1) for c in range(width - window + 1)]
    maps = []
    for image in images:
        whole = _activation(tower, sae, image[None], latent, reduce)[0]
        total, covered = image.new_zeros(height, width), image.new_zeros(height, width)
        for start in range(0, len(places), chunk):
            part = places[start : start + chunk]
            painted = image[None].repeat(len(part), 1, 1, 1)
            for i, (r, c) in enumerate(part):
                rows = slice(r * patch_height, (r + window) * patch_height)
                columns = slice(c * patch_width, (c + window) * patch_width)
                painted[i, :, rows, columns] = colour[0]
            drops = whole - _activation(tower, sae, painted, latent, reduce)
            for drop, (r, c) in zip(drops, part, strict=True):
                total[r : r + window, c : c + window] += drop
                covered[r : r + window, c : c + window] += 1
        maps.append(total / covered)
    return torch.stack(maps)


def normalised(maps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """Each map divided by its largest magnitude: -1 .. 1, signs kept, a map of zeros stays one."""
    largest = maps.abs().amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, torch.ones_like(largest))


def upsampled(
    maps: Float[Tensor, "batch height width"],
    size: tuple[int, int],
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Float[Tensor, "batch new_height new_width"]:
    """Maps at `size` (height, width) pixels. Both modes stay within the range of the map, so signs
    survive.
    """
    if maps.ndim != 3:
        raise InvalidInput(f"maps must be (batch, height, width), got shape {tuple(maps.shape)}")
    if mode == "nearest":
        return functional.interpolate(maps[:, None], size=size, mode="nearest-exact")[:, 0]
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def crop_box(
    heatmap: Float[Tensor, "height width"],
    image_size: tuple[int, int],
    level: float = 0.5,
    share_min: float = 0.3,
) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) in pixels around the peak of a map over an image of (height, width).

    It holds the cells connected to the peak (by sides or corners) that reach `level` of it, as a square of at
    least `share_min` of the shorter side of the image, moved inside. Where no cell is above zero (a latent
    that fires at CLS alone) it is the whole image.
    """
    if heatmap.ndim != 2 or not heatmap.numel():
        raise InvalidInput(f"the map must be (height, width), got shape {tuple(heatmap.shape)}")
    if not (0 < level <= 1 and 0 < share_min <= 1):
        raise InvalidInput(f"level={level} and share_min={share_min} must lie in (0, 1]")
    if min(image_size) < 1:
        raise InvalidInput(f"image_size={image_size} must be >= 1 in both directions")
    image_height, image_width = image_size
    cells = heatmap.detach().cpu().double().numpy()
    if not cells.max() > 0:
        return 0, 0, image_width, image_height
    parts, _ = ndimage.label(cells >= level * cells.max(), structure=[[1, 1, 1]] * 3)
    rows, columns = (parts == parts.flat[cells.argmax()]).nonzero()
    cell_height, cell_width = image_height / cells.shape[0], image_width / cells.shape[1]
    top, bottom = rows.min() * cell_height, (rows.max() + 1) * cell_height
    left, right = columns.min() * cell_width, (columns.max() + 1) * cell_width
    shorter = min(image_size)
    side = min(shorter, max(1, round(max(bottom - top, right - left, share_min * shorter))))
    box_left = min(max(0, round((left + right - side) / 2)), image_width - side)
    box_top = min(max(0, round((top + bottom - side) / 2)), image_height - side)
    return box_left, box_top, box_left + side, box_top + side


def _activation(tower: SplitTower, sae: Sae, images: Tensor, latent: int, reduce: Reduce) -> Tensor:
    """z_j of each image: maximum or sum over all tokens, CLS included."""
    x = tower.prefix(images).x
    z = sae.encode_selected(x, torch.tensor([latent], device=x.device))[..., 0]
    if reduce == "max":
        return z.amax(dim=1)
    if reduce == "sum":
        return z.sum(dim=1)
    raise InvalidInput(f"reduce={reduce!r} must be 'max' or 'sum'")


def _colour(colour: Tensor | None, images: Tensor) -> Tensor:
    if images.ndim != 4:
        raise InvalidInput(f"images must be (batch, 3, height, width), got shape {tuple(images.shape)}")
    if colour is None:
        return images.new_zeros(1, images.shape[1], 1, 1)
    if colour.shape != (images.shape[1],):
        raise InvalidInput(f"a colour has {images.shape[1]} channels here, got shape {tuple(colour.shape)}")
    return colour.to(images).reshape(1, -1, 1, 1)


def _check_latent(latent: int, sae: Sae) -> None:
    if not 0 <= latent < sae.config.d_sae:
        raise LatentOutOfRange(f"latent {latent} does not lie in 0 .. {sae.config.d_sae - 1}")
