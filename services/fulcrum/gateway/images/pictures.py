"""What an uploaded file must be, and small pictures of it."""

import io
from dataclasses import dataclass

from fulcrum.domain.errors import UnreadableImage
from fulcrum.science.vision.images import decode_image

THUMBNAIL_SIDE = 256  # pixels of the longer side
# By the first bytes, never by what the client says: an HTML page that calls itself image/png stays out.
_BEGINNINGS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Checked:
    """An image that the models can read. The size is as a person sees it, turned as its EXIF says."""

    media_type: str
    width: int
    height: int


def check_picture(content: bytes, max_bytes: int) -> Checked:
    """Decodes it wholly, with the decoder of the models. Raises UnreadableImage, ImageTooLarge."""
    picture = decode_image(content, max_bytes=max_bytes)
    return Checked(media_type_of(content), picture.width, picture.height)


def media_type_of(content: bytes) -> str:
    """Raises UnreadableImage for what is not PNG, JPEG or WebP."""
    for beginning, media_type in _BEGINNINGS.items():
        if content.startswith(beginning):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise UnreadableImage(f"not a PNG, JPEG or WebP image: {len(content)} bytes")


def thumbnail(content: bytes) -> bytes:
    """JPEG of at most 256 x 256 pixels, upright, without the original's metadata."""
    picture = decode_image(content, max_bytes=len(content))
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()
