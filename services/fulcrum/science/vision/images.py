"""Bytes to RGB images, with their size checked before a pixel is decoded."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from fulcrum.domain.errors import ImageTooLarge, UnreadableImage

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000  # a 50-megapixel photograph; 150 MB as RGB

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a person sees it, as RGB: turned as EXIF says, transparency over white, first frame.

    PNG, JPEG and WebP are read. 16-bit grey levels keep their high byte, as Pillow does for 16-bit colour.
    Raises UnreadableImage (another format, damaged, truncated) and ImageTooLarge, this from the header alone.
    """
    if len(data) > max_bytes:
        raise ImageTooLarge(f"the image file has {len(data)} bytes; allowed are {max_bytes}")
    opener = _opener(data)
    try:
        if opener is WebPImagePlugin.WebPImageFile:
            # The WebP decoder allocates its canvas on opening.
            _check_pixels(*_webp_size(data), max_pixels)
        image = opener(io.BytesIO(data))
        _check_pixels(image.width, image.height, max_pixels)
        image.load()
        return _rgb(_upright(image))
    except (ImageTooLarge, UnreadableImage):
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error ...
        raise UnreadableImage(f"the image is damaged or truncated: {error}") from error


def _opener(data: bytes) -> Callable[[io.BytesIO], Image.Image]:
    """The plugin itself: Image.open() would try every format it knows, and warn about large images."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    begins = data[:8].hex(" ") or "nothing"
    raise UnreadableImage(f"not a PNG, JPEG or WebP image: {len(data)} bytes that begin with {begins}")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image is {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {width * height} pixels; allowed are {max_pixels}"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas size of the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise UnreadableImage(f"the WebP image is truncated: {len(data)} bytes")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise UnreadableImage(f"a WebP image cannot begin with a chunk {kind!r}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF: the pixels are fine, and shown as they are everywhere else
        orientation = 1
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # convert() would cut every level above 255 off, to a white picture
        grey = np.asarray(image)
        return Image.fromarray((grey.astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")
