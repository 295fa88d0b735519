"""Images of a data set that somebody chose: tags and slices to be looked at, and lists that must keep their answers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.errors import CorruptFile

# `slice`: judged like the slices of a column (a plain tag is one); `invariant`: no answer on it may change.
ImageSetPurpose = Literal["slice", "invariant"]
MAX_IMAGES = 100_000  # of a set


@dataclass(frozen=True)
class FrozenImageSet:
    """A set as a question named it; whatever becomes of the set, `sha256` is the artifact with its images then."""

    id: str
    name: str
    purpose: ImageSetPurpose
    sha256: str
    n_images: int


def to_bytes(image_ids: Iterable[str]) -> bytes:
    """The ids in one form, each once and sorted: the same images are the same artifact."""
    return json.dumps(sorted(set(image_ids)), separators=(",", ":")).encode()


def from_bytes(content: bytes) -> tuple[str, ...]:
    """Inverse of `to_bytes`. Raises CorruptFile."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise CorruptFile(f"the images of a set cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(i, str) for i in found):
        raise CorruptFile("the images of a set cannot be read: they are no list of texts")
    return tuple(found)
