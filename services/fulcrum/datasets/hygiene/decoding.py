"""Encoded bytes to upright RGB pixels, under limits that are checked before anything is decompressed."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fulcrum.domain.errors import ImageTooLarge, UnreadableImage

_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_ORIENTATION: Final = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Limits:
    """What an image may weigh. Pixels are width x height as the header states them.

    By default what the models take (`science.vision.images`): an import must not let in what no job can read.
    """

    max_bytes: int = 32 << 20
    max_pixels: int = 50_000_000


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True)
class DecodedImage:
    """Pixels as a person sees them, and what had to be done to get there."""

    pixels: NDArray[np.uint8]  # (height, width, 3) RGB
    format: str
    was_rotated: bool  # by its EXIF orientation
    was_converted: bool  # from another mode than RGB


def decode_image(content: bytes, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Upright RGB of the first frame. Transparency is dropped, 16-bit grey scaled to 8 bits.

    Raises ImageTooLarge (bytes or header over the limits) and UnreadableImage (no PNG, JPEG or WebP;
    truncated).
    """
    if len(content) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(content)} bytes, the limit is {limits.max_bytes}")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ImageTooLarge(
                    f"the image has {width} x {height} pixels, the limit is {limits.max_pixels} in all"
                )
            was_rotated = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(_rgb(upright), dtype=np.uint8)
            return DecodedImage(pixels, image.format or "", was_rotated, image.mode != "RGB")
    except ImageTooLarge:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own words name a limit of its own.
        raise ImageTooLarge(
            f"the image has far more pixels than {limits.max_pixels}, which is the limit"
        ) from error
    except Exception as error:
        # Pillow lets OSError, SyntaxError, ValueError, struct.error, zlib.error and more through on hostile
        # bytes.
        raise UnreadableImage(
            f"the {len(content)} bytes are no complete PNG, JPEG or WebP image: {error}"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # convert() would clip 16 bits at 255 and turn the picture white.
        wide = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparency warns when it goes to RGB directly
    return image.convert("RGB")
