"""An image on the wire: its bytes, or the name under which the artifact store keeps them."""

import hashlib
import re
from dataclasses import dataclass

from fulcrum.domain.errors import UnknownArtifact

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageHash:
    """An image that the inference service reads from the artifact store itself. Raises UnknownArtifact."""

    sha256: str

    def __post_init__(self) -> None:
        # A service may build a path from it, so nothing else may ever stand here.
        if not _SHA256.fullmatch(self.sha256):
            raise UnknownArtifact(
                f"{self.sha256[:80]!r} names no artifact: expected 64 hexadecimal digits, lower case"
            )


Image = bytes | ImageHash


def image_sha256(image: Image) -> str:
    """Content hash, whichever form the image has."""
    return image.sha256 if isinstance(image, ImageHash) else hashlib.sha256(image).hexdigest()
