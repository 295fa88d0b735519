"""An image as callers have it -- a path, bytes, an open file, an array or a PIL image -- as the bytes of a file."""

import io
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fulcrum.client.steps import FilePart
from fulcrum.domain.errors import ImageTooLarge, InvalidRequest, MissingDependency, UnreadableImage
from fulcrum.domain.results import FloatArray, IntArray

MAX_BYTES = 32 << 20  # the platform's own limit for an image

_MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


@runtime_checkable
class PilImage(Protocol):
    """What of `PIL.Image.Image` is needed; Pillow itself is not."""

    @property
    def mode(self) -> str:
        """How pixels are kept."""
        ...

    def save(self, fp: Any, format: str) -> None:
        """Encodes."""
        ...


@runtime_checkable
class Readable(Protocol):
    """A binary file that is open."""

    def read(self) -> bytes:
        """All of it."""
        ...


Picture = str | os.PathLike[str] | bytes | Readable | PilImage | FloatArray | IntArray


def picture_part(picture: Picture, filename: str | None = None) -> FilePart:
    """The upload of an image; files go as they are, arrays and PIL images as PNG, which loses nothing.

    An array is (height, width, 3) uint8, or (height, width) for grey. Raises UnreadableImage, ImageTooLarge.
    """
    name, content = _content(picture)
    if len(content) > MAX_BYTES:
        raise ImageTooLarge(f"the image has {len(content)} bytes: at most {MAX_BYTES} are taken")
    kind = _kind(content)
    return FilePart("file", filename or name or f"image.{kind}", content, _MEDIA_TYPES[kind])


def _content(picture: Picture) -> tuple[str | None, bytes]:
    match picture:
        case str() | os.PathLike():
            path = Path(picture).expanduser()
            try:
                if path.stat().st_size > MAX_BYTES:
                    raise ImageTooLarge(f"{str(path)!r} has more than {MAX_BYTES} bytes")
                return path.name, path.read_bytes()
            except OSError as error:
                raise UnreadableImage(f"{str(path)!r} cannot be read: {error.strerror}") from error
        case bytes():
            return None, bytes(picture)
        case np.ndarray():
            return None, _encoded(_from_array(picture))
        case PilImage():
            return _name_of(getattr(picture, "filename", None)), _encoded(picture)
        case Readable():
            content = picture.read()
            if not isinstance(content, bytes):
                raise UnreadableImage("the file is open as text: open it with mode 'rb'")
            return _name_of(getattr(picture, "name", None)), content
        case _:
            raise InvalidRequest(
                f"an image is a path, bytes, an open file, an array, a PIL image or an ImageRecord, "
                f"got {type(picture).__name__}"
            )


def _name_of(path: object) -> str | None:
    return Path(path).name or None if isinstance(path, str) else None


def _encoded(picture: PilImage) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _from_array(array: Any) -> PilImage:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("arrays need the package 'pillow' to become an image file") from error
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise UnreadableImage(
            f"an array of shape {array.shape} and {array.dtype}: expected uint8 (height, width[, 3])"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _kind(content: bytes) -> str:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    raise UnreadableImage(
        f"neither PNG, JPEG nor WebP: the first bytes are {content[:12].hex(' ') or 'none'}"
    )
