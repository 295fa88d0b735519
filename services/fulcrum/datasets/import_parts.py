"""Images looked at in parts: what one part of an import found out, as one file with their small pictures.

The end of the import reads the facts; whoever shows the data set reads the pictures, memory-mapped.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.hygiene.decoding import DEFAULT_LIMITS, Limits
from fulcrum.datasets.hygiene.facts import ImageFacts, facts_of, read_image, shown_jpeg
from fulcrum.datasets.index.array_file import ArrayFile, open_array_file, write_array_file
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain import errors

KIND: Final = "import_part"
VERSION: Final = 1  # of the file and of what it is made by: thumbnails, hashes
_NONE = bytes(32)
_READABLE, _ROTATED, _CONVERTED, _HAS_BYTES = 1, 2, 4, 8
# What can be wrong with an image; by its reason, since a file holds no classes.
_ERRORS: Final = {
    e.reason: e
    for e in (errors.UnreadableImage, errors.ImageTooLarge, errors.MissingFiles, errors.InvalidDataset)
}


@dataclass(frozen=True)
class LookedAt:
    """One image. `content` is None where it cannot be used; `mask` is that of a mask that can be read."""

    facts: ImageFacts
    content: bytes | None = None
    picture: bytes = b""  # small JPEG
    prepared: NDArray[np.float32] | None = None  # as a model takes it
    mask: bytes | None = None
    mask_problem: str = ""


# Upright RGB pixels (height, width, 3) as a model takes them. Raises ImageTooLarge for what it cannot take.
Prepare = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def look_at(
    dataset: Dataset, sample: Sample, limits: Limits = DEFAULT_LIMITS, prepare: Prepare | None = None
) -> LookedAt:
    """Reads and decodes one image and its mask. What is wrong with them is told, not raised.

    With `prepare` the image is made ready for a model too, unless that cannot take it.
    """
    try:
        content = read_image(dataset, sample, limits)
    except errors.InvalidInput as error:
        return LookedAt(ImageFacts(error=error))
    facts, decoded = facts_of(content, limits)
    if decoded is None:
        return LookedAt(facts)
    mask, problem = _mask(dataset.root, sample, limits)
    prepared = None
    if prepare is not None:
        with suppress(errors.ImageTooLarge):
            prepared = prepare(decoded.pixels)
    return LookedAt(facts, content, shown_jpeg(decoded), prepared, mask, problem)


@dataclass(frozen=True)
class Part:
    """An opened file; row i is about the i-th image of the part."""

    file: ArrayFile

    def facts(self) -> list[ImageFacts]:
        """Of every image."""
        a = self.file.arrays
        problems = {row: (reason, text) for row, reason, text in json.loads(a["problems"].tobytes())}
        found = []
        for i, flags in enumerate(a["flags"].tolist()):
            error = None
            if not flags & _READABLE:
                reason, text = problems[i]
                error = _ERRORS.get(reason, errors.UnreadableImage)(text)
            found.append(
                ImageFacts(
                    bytes_sha256=_hex(a["bytes_sha256"][i]) if flags & _HAS_BYTES else "",
                    pixels_sha256=_hex(a["pixels_sha256"][i]) if error is None else "",
                    phash=int(a["phash"][i]),
                    thumbnail=np.array(a["compared"][i]) if error is None else None,
                    width=int(a["size"][i, 0]),
                    height=int(a["size"][i, 1]),
                    was_rotated=bool(flags & _ROTATED),
                    was_converted=bool(flags & _CONVERTED),
                    error=error,
                )
            )
        return found

    @property
    def n_bytes(self) -> NDArray[np.int64]:
        """(n,) of the encoded images, 0 where one cannot be used."""
        return np.asarray(self.file.arrays["n_bytes"])

    def masks(self) -> list[str | None]:
        """sha256 of each image's mask."""
        found = [_hex(row) for row in self.file.arrays["mask_sha256"]]
        return [None if sha256 == _NONE.hex() else sha256 for sha256 in found]

    def mask_problems(self) -> list[str]:
        """Masks that were left out, and why."""
        return list(json.loads(self.file.arrays["mask_problems"].tobytes()))

    @property
    def embeddings(self) -> NDArray[np.float32] | None:
        """(n, d_embed), zeros for images that have none; None where no model was named."""
        found = self.file.arrays.get("embeddings")
        return None if found is None else np.asarray(found)

    def picture(self, row: int) -> bytes:
        """The small JPEG of an image that can be used."""
        start, end = self.file.arrays["picture_offsets"][row : row + 2].tolist()
        return bytes(self.file.arrays["pictures"][start:end].tobytes())


def open_part(path: Path) -> Part:
    """Raises CorruptIndex."""
    file = open_array_file(path, KIND)
    if file.meta.get("version") != VERSION:
        raise errors.CorruptIndex(f"{path.name} is no part of an import of version {VERSION}")
    return Part(file)


class PartWriter:
    """Collects images in their order; the same images give the same bytes."""

    def __init__(self) -> None:
        self._facts: list[ImageFacts] = []
        self._pictures: list[bytes] = []
        self._n_bytes: list[int] = []
        self._masks: list[str | None] = []
        self._mask_problems: list[str] = []

    def add(self, found: LookedAt, mask_sha256: str | None) -> None:
        """The next image."""
        self._facts.append(found.facts)
        self._pictures.append(found.picture)
        self._n_bytes.append(len(found.content or b""))
        self._masks.append(mask_sha256)
        if found.mask_problem:
            self._mask_problems.append(found.mask_problem)

    def write(self, path: Path, embeddings: NDArray[np.float32] | None = None) -> None:
        """Writes the file, with the images' embeddings (n, d_embed) where a model was named."""
        facts = self._facts
        offsets = np.cumsum([0, *(len(p) for p in self._pictures)])
        problems = [(i, f.error.reason, str(f.error)) for i, f in enumerate(facts) if f.error is not None]
        empty = np.zeros((16, 16), dtype=np.uint8)
        arrays: dict[str, NDArray[Any]] = {
            "bytes_sha256": _rows([f.bytes_sha256 for f in facts]),
            "pixels_sha256": _rows([f.pixels_sha256 for f in facts]),
            "mask_sha256": _rows([m or "" for m in self._masks]),
            "phash": np.array([f.phash for f in facts], dtype=np.uint64),
            "compared": np.stack([empty if f.thumbnail is None else f.thumbnail for f in facts]),
            "size": np.array([(f.width, f.height) for f in facts], dtype=np.int64),
            "flags": np.array([_flags(f) for f in facts], dtype=np.uint8),
            "n_bytes": np.array(self._n_bytes, dtype=np.int64),
            "picture_offsets": offsets.astype(np.int64),
            "pictures": np.frombuffer(b"".join(self._pictures), dtype=np.uint8),
            "problems": _json(problems),
            "mask_problems": _json(self._mask_problems),
        }
        if embeddings is not None:
            arrays["embeddings"] = embeddings
        write_array_file(path, KIND, arrays, {"version": VERSION})


def _mask(root: Path, sample: Sample, limits: Limits) -> tuple[bytes | None, str]:
    if sample.mask_path is None:
        return None, ""
    try:
        # Formats that keep images in shards do not look for masks, so this may lead anywhere.
        place = (root / sample.mask_path).resolve(strict=True)
        if not place.is_relative_to(root.resolve()) or place.stat().st_size > limits.max_bytes:
            return None, f"{sample.id}: the mask {sample.mask_path!r} is too large or lies elsewhere"
        content = place.read_bytes()
    except OSError as error:
        return None, f"{sample.id}: the mask {sample.mask_path!r} cannot be read: {error.strerror}"
    failed = facts_of(content, limits)[0].error
    return (content, "") if failed is None else (None, f"{sample.id}: the mask cannot be read: {failed}")


def _flags(facts: ImageFacts) -> int:
    flags = _ROTATED * facts.was_rotated | _CONVERTED * facts.was_converted
    return flags | _READABLE * (facts.error is None) | _HAS_BYTES * bool(facts.bytes_sha256)


def _rows(hashes: Sequence[str]) -> NDArray[np.uint8]:
    joined = b"".join(bytes.fromhex(h) if h else _NONE for h in hashes)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(hashes), 32)


def _hex(row: NDArray[np.uint8]) -> str:
    return row.tobytes().hex()


def _json(content: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
