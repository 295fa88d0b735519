"""Images to the model's input as OpenCLIP does it, and the way back from patches to the displayed image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, ImageTooLarge
from fulcrum.science.vision.backend import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from fulcrum.science.vision.geometry import CropBox, ViewGeometry

# A strip of 1 x 50000 pixels resized by its shorter side to 224 would have 2.5 billion pixels.
MAX_RESIZED_PIXELS = 2**26


class Preprocess:
    """OpenCLIP's inference transform of one model, over batches."""

    def __init__(self, options: dict[str, Any], image_size: tuple[int, int]) -> None:
        """`options` overlay OpenCLIP's defaults; `image_size` is the model's (height, width).

        Raises CorruptCheckpoint for options that OpenCLIP does not know.
        """
        try:
            merged = merge_preprocess_dict(PreprocessCfg(), {**options, "size": image_size})
            self.config = PreprocessCfg(**merged)
            *self._pil, _to_tensor, normalise = image_transform_v2(self.config, is_train=False).transforms
        except (TypeError, ValueError, AssertionError) as error:
            raise CorruptCheckpoint(
                f"the model's preprocessing configuration is not valid: {error!r}"
            ) from error
        self.image_size = image_size
        self._mean = torch.tensor(normalise.mean, dtype=torch.float32).view(1, -1, 1, 1)
        self._std = torch.tensor(normalise.std, dtype=torch.float32).view(1, -1, 1, 1)

    @property
    def sha256(self) -> str:
        """Identity of the preprocessing."""
        content = json.dumps(asdict(self.config), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def __call__(
        self, images: Sequence[Image.Image], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n 3 height width"]:
        """Bit-equal to OpenCLIP's transform of each RGB image. Raises ImageTooLarge for extreme strips."""
        height, width = self.image_size
        pixels = np.empty((len(images), height, width, 3), dtype=np.uint8)
        for row, image in zip(pixels, images, strict=True):
            self._check_resized_size(image)
            for step in self._pil:
                image = step(image)
            row[...] = np.asarray(image)
        # Resized and cropped images are small: four times fewer bytes go to the device than as floats.
        batch = (
            torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
        )
        return batch.sub_(self._mean.to(device)).div_(self._std.to(device))

    @property
    def geometry(self) -> ViewGeometry:
        """Where it crops."""
        return ViewGeometry(self.image_size, self.config.resize_mode)

    def crop_box(self, width: int, height: int) -> CropBox:
        """The part of an image of that size which the model sees."""
        return self.geometry.crop_box(width, height)

    def patch_boxes(self, width: int, height: int, grid: tuple[int, int]) -> NDArray[np.float64]:
        """(rows * columns, 4) left, top, right, bottom of every patch in the displayed image, row by row."""
        return self.geometry.patch_boxes(width, height, grid)

    def _check_resized_size(self, image: Image.Image) -> None:
        (height, width), _ = self.geometry.resized(image.width, image.height)
        if height * width > MAX_RESIZED_PIXELS or min(height, width) < 1:
            raise ImageTooLarge(
                f"an image of {image.width} x {image.height} pixels is too long a strip: resized for the "
                f"model it has {width} x {height}, allowed are 1 to {MAX_RESIZED_PIXELS} pixels"
            )
