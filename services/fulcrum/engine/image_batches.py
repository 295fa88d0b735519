"""Images of a data set as preprocessed batches of one fixed size."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import UnreadableImage
from fulcrum.science.vision.images import decode_image
from fulcrum.science.vision.loaded import LoadedModel

# One size for every pass over a data set. A product of matrices rounds differently for another number of rows,
# and a TopK SAE turns the last bit into another set of latents; with one size, an image has the same
# activations whoever stands beside it in the batch, and affected-only runs equal full ones bit for bit.
BATCH_SIZE = 32
_DECODING_THREADS = 4


@dataclass(frozen=True)
class ImageBatch:
    """`pixels` always has the full number of rows; those from `len(numbers)` on repeat the last image."""

    numbers: NDArray[np.int64]
    pixels: Tensor


def image_batches(
    loaded: LoadedModel, dataset: Dataset, numbers: Sequence[int] | NDArray[np.int64], size: int = BATCH_SIZE
) -> Iterator[ImageBatch]:
    """Batches in the order of `numbers`, the next one decoded while the caller works on this one.

    Raises UnreadableImage or ImageTooLarge, naming the image.
    """
    wanted = np.asarray(numbers, dtype=np.int64)
    pieces = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:

        def decode(number: int) -> Tensor:
            sample = dataset.samples[number]
            try:
                image = decode_image(dataset.read_bytes(sample))
            except UnreadableImage as error:
                raise UnreadableImage(f"image {sample.id!r} of {dataset.name!r}: {error}") from error
            return loaded.preprocess([image])

        waiting = [[pool.submit(decode, int(n)) for n in piece] for piece in pieces[:1]]
        for i, piece in enumerate(pieces):
            if i + 1 < len(pieces):
                waiting.append([pool.submit(decode, int(n)) for n in pieces[i + 1]])
            pixels = torch.cat([future.result() for future in waiting.pop(0)])
            missing = size - len(piece)
            if missing:
                pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
            yield ImageBatch(piece, pixels.to(loaded.device, loaded.dtype))
