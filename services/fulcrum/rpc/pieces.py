"""Many images as several requests, each of a size that a channel takes and a queue shares fairly."""

from collections.abc import Iterator, Sequence

from fulcrum.rpc.images import Image

MAX_IMAGES = 64
MAX_BYTES = 24 * 1024 * 1024


def pieces_of(images: Sequence[Image]) -> Iterator[tuple[Image, ...]]:
    """Consecutive runs of `images`, at least one run, so that the service refuses an empty list itself."""
    piece: list[Image] = []
    size = 0
    for image in images:
        more = len(image) if isinstance(image, bytes) else 0
        if piece and (len(piece) == MAX_IMAGES or size + more > MAX_BYTES):
            yield tuple(piece)
            piece, size = [], 0
        piece.append(image)
        size += more
    yield tuple(piece)
