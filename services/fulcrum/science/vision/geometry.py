"""Which part of an image a model sees, and where its patches lie in it. Without torch: pages show it too."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CropBox:
    """What the model sees, in pixels of the displayed image; may reach beyond it where the model pads."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class ViewGeometry:
    """How OpenCLIP's inference transform resizes and crops; `image_size` is the model's (height, width)."""

    image_size: tuple[int, int]
    resize_mode: str  # "shortest", "longest" or "squash"

    def crop_box(self, width: int, height: int) -> CropBox:
        """The part of an image of that size which the model sees."""
        (resized_height, resized_width), (top, left) = self.resized(width, height)
        across, down = width / resized_width, height / resized_height
        return CropBox(
            left * across, top * down, (left + self.image_size[1]) * across, (top + self.image_size[0]) * down
        )

    def patch_boxes(self, width: int, height: int, grid: tuple[int, int]) -> NDArray[np.float64]:
        """(rows * columns, 4) left, top, right, bottom of every patch in the displayed image, row by row."""
        rows, columns = grid
        box = self.crop_box(width, height)
        # An image side that is no multiple of the patch size leaves a rest that no patch covers.
        patch_height, patch_width = self.image_size[0] // rows, self.image_size[1] // columns
        down = (box.bottom - box.top) / self.image_size[0] * patch_height
        across = (box.right - box.left) / self.image_size[1] * patch_width
        row, column = (index.reshape(-1) for index in np.indices((rows, columns)))
        return np.stack(
            [
                box.left + column * across,
                box.top + row * down,
                box.left + (column + 1) * across,
                box.top + (row + 1) * down,
            ],
            axis=1,
        )

    def resized(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) after resizing, and the corner of the crop in it, negative where OpenCLIP pads."""
        target_height, target_width = self.image_size
        if self.resize_mode == "squash":
            return self.image_size, (0, 0)
        if self.resize_mode == "shortest" and target_height == target_width:  # torchvision's Resize(int)
            if width <= height:
                resized = (int(target_height * height / width), target_width)
            else:
                resized = (target_height, int(target_width * width / height))
        else:  # OpenCLIP's ResizeKeepRatio
            ratios = (height / target_height, width / target_width)
            ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
            resized = (round(height / ratio), round(width / ratio))
        return resized, (_corner(resized[0], target_height), _corner(resized[1], target_width))


def _corner(size: int, crop: int) -> int:
    """Where torchvision's and OpenCLIP's centre crop starts; padding puts its odd pixel on the far side."""
    return round((size - crop) / 2.0) if size >= crop else -((crop - size) // 2)
