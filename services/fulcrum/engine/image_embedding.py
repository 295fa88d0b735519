"""Images embedded by who has decoded them already: an import looks at each of them once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fulcrum.engine.device_memory import tells_full_memory
from fulcrum.engine.image_batches import BATCH_SIZE
from fulcrum.science.vision import classes
from fulcrum.science.vision.loaded import LoadedModel


@dataclass(frozen=True)
class ImageEmbedder:
    """A model, as far as embeddings of images go."""

    loaded: LoadedModel

    @property
    def identity(self) -> dict[str, str]:
        """Everything about the model that determines an embedding, as plain JSON."""
        info = self.loaded.info
        return {
            "model_sha256": info.weights_sha256,
            "preprocess_sha256": info.preprocess_sha256,
            "device_type": self.loaded.device.type,
            "dtype": info.dtype,
        }

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3, height, width) of upright RGB pixels; in whatever thread decoded them. Raises ImageTooLarge."""
        prepared: NDArray[np.float32] = self.loaded.preprocess([Image.fromarray(pixels)])[0].numpy()
        return prepared

    def embed(self, prepared: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
        """Unit-norm (n, d_embed), zeros for None. Raises ComputationFailed, OutOfMemory."""
        found = np.zeros((len(prepared), self.loaded.info.d_embed), dtype=np.float32)
        there = [n for n, image in enumerate(prepared) if image is not None]
        for start in range(0, len(there), BATCH_SIZE):
            numbers = there[start : start + BATCH_SIZE]
            found[numbers] = self._batch([image for n in numbers if (image := prepared[n]) is not None])
        return found

    @tells_full_memory
    def _batch(self, images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.stack(images))
        missing = BATCH_SIZE - len(images)
        if missing:  # the one size of all passes over data sets, see there
            pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        embeddings = classes.encode_images(self.loaded, pixels)[: len(images)]
        answer: NDArray[np.float32] = embeddings.float().cpu().numpy()
        return answer
