"""What one image is: hashes of its bytes and pixels, its size, and small pictures of it."""

import hashlib
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fulcrum.datasets.hygiene.decoding import DecodedImage, Limits, decode_image
from fulcrum.datasets.hygiene.phash import phash, thumbnail
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import FulcrumError, ImageTooLarge

SHOWN_SIDE: Final = 256  # pixels of the longer side of what people see in lists
_QUALITY: Final = 85


@dataclass(frozen=True)
class ImageFacts:
    """Of an image that cannot be read only `error` is known, and the hash of its bytes where there were some."""

    bytes_sha256: str = ""
    pixels_sha256: str = ""
    phash: int = 0
    thumbnail: NDArray[np.uint8] | None = None  # (16, 16) grey, to compare
    width: int = 0
    height: int = 0
    was_rotated: bool = False
    was_converted: bool = False
    error: FulcrumError | None = None


def read_image(dataset: Dataset, sample: Sample, limits: Limits) -> bytes:
    """Encoded bytes, unless there are too many. Raises ImageTooLarge, MissingFiles, InvalidDataset."""
    size, _ = dataset.hashes.byte_source.stamp(sample.source)
    if size > limits.max_bytes:
        raise ImageTooLarge(f"the image has {size} bytes, the limit is {limits.max_bytes}")
    return dataset.read_bytes(sample)


def facts_of(content: bytes, limits: Limits) -> tuple[ImageFacts, DecodedImage | None]:
    """Facts and pixels of encoded bytes; None of an image that cannot be read."""
    bytes_sha256 = hashlib.sha256(content).hexdigest()
    try:
        decoded = decode_image(content, limits)
    except FulcrumError as error:
        return ImageFacts(bytes_sha256, error=error), None
    height, width, _ = decoded.pixels.shape
    facts = ImageFacts(
        bytes_sha256,
        # The shape belongs to it: 2 x 8 and 4 x 4 pixels can have the same bytes.
        hashlib.sha256(f"{height}x{width}:".encode() + decoded.pixels.tobytes()).hexdigest(),
        phash(decoded.pixels),
        thumbnail(decoded.pixels),
        width,
        height,
        decoded.was_rotated,
        decoded.was_converted,
    )
    return facts, decoded


def shown_jpeg(decoded: DecodedImage) -> bytes:
    """JPEG of at most 256 x 256 pixels, upright, without the original's metadata."""
    picture = Image.fromarray(decoded.pixels)
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
