"""Images of a request: sent along, or named by their hash in the artifact store."""

from fulcrum.domain.errors import (
    ImageTooLarge,
    PayloadTooLarge,
    UnknownArtifact,
    UnknownImage,
)
from fulcrum.engine.byte_lru import ByteLru
from fulcrum.engine.sae_artifacts import ArtifactReader
from fulcrum.rpc.images import Image

# A slider asks about one image many times; each time it would be fetched and hashed again.
_KEPT_BYTES = 128 << 20


class Images:
    """Encoded files; thread-safe."""

    def __init__(self, artifacts: ArtifactReader | None, max_bytes: int) -> None:
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._kept: ByteLru[str, bytes] = ByteLru(_KEPT_BYTES)

    def read(self, image: Image) -> bytes:
        """Raises ImageTooLarge, UnknownImage, CorruptArtifact."""
        if not isinstance(image, bytes):
            return self._fetch(image.sha256)
        if len(image) > self._max_bytes:
            raise ImageTooLarge(f"the image file has {len(image)} bytes; allowed are {self._max_bytes}")
        return image

    def _fetch(self, sha256: str) -> bytes:
        if self._artifacts is None:
            raise UnknownImage(f"image {sha256!r}: this service knows no artifact store; send the bytes")
        artifacts = self._artifacts

        def make() -> tuple[bytes, int]:
            try:
                data = artifacts.read_bytes(sha256, self._max_bytes)
            except UnknownArtifact:
                raise UnknownImage(f"no image has the hash {sha256!r}") from None
            except PayloadTooLarge as error:
                raise ImageTooLarge(str(error)) from None
            return data, len(data)

        return self._kept.get_or_make(sha256, make)
