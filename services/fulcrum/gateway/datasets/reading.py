"""Imported data sets as the gateway holds them: their samples and small pictures, opened once."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from fulcrum.datasets.import_parts import Part, open_part
from fulcrum.datasets.samples import Dataset
from fulcrum.datasets.stored import ImportedColumns, read_stored
from fulcrum.domain.datasets import DatasetImage, ImageBy
from fulcrum.domain.errors import InvalidRequest, UnknownImage
from fulcrum.store.artifacts import Artifacts

# A sample takes about a kilobyte.
_MAX_SAMPLES = 300_000
_MAX_THUMBNAIL_BYTES = 64 << 20
_MAX_PARTS = 64  # memory-mapped, so they cost addresses rather than memory


@dataclass(frozen=True)
class OpenedDataset:
    """The samples of a data set, found by id, number or content."""

    dataset: Dataset
    columns: ImportedColumns | None = None  # None: imported before these were kept

    def number(self, image: str, by: ImageBy) -> int:
        """Of the image; of several with this content the first. Raises UnknownImage, InvalidRequest."""
        unknown = UnknownImage(
            f"no image with the {by} {image[:200]!r} in {self.dataset.name!r} ({len(self.dataset)} images)"
        )
        match by:
            case "id":
                found = self._by_id.get(image)
            case "sha256":
                found = self._by_sha256.get(image)
            case "number":
                if not (image.isascii() and image.isdecimal()) or len(image) > 18:
                    raise InvalidRequest(f"{image[:80]!r} is no number of an image: expected 0, 1, 2, ...")
                found = int(image) if int(image) < len(self.dataset) else None
        if found is None:
            raise unknown
        return found

    def has(self, image_id: str) -> bool:
        """Whether an image of this id is in it."""
        return image_id in self._by_id

    def split_of(self, image_id: str) -> str:
        """Of an image that is in it; "" where it has none."""
        return self.dataset.samples[self._by_id[image_id]].split or ""

    def image(self, number: int) -> DatasetImage:
        """One of them, as it is shown."""
        sample, c = self.dataset.samples[number], self.columns
        return DatasetImage(
            id=sample.id,
            number=number,
            sha256=self.dataset.bytes_sha256[number],
            label=sample.label,
            split=sample.split,
            groups=dict(sample.groups),
            covariates=dict(sample.covariates),
            pair_id=sample.pair_id,
            licence=sample.licence,
            metadata=dict(sample.metadata),
            width=None if c is None else int(c.widths[number]),
            height=None if c is None else int(c.heights[number]),
            pixels_sha256=None if c is None else c.pixels_sha256[number],
            phash=None if c is None else f"{int(c.phashes[number]):016x}",
            cluster=None if c is None else int(c.clusters[number]),
            mask_sha256=None if c is None else sample.mask_path,
        )

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {s.id: i for i, s in enumerate(self.dataset.samples)}

    @cached_property
    def _by_sha256(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for i, sha256 in enumerate(self.dataset.bytes_sha256):
            found.setdefault(sha256, i)
        return found


class DatasetFiles:
    """Safe to share between threads. What it holds never changes under its name."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, OpenedDataset] = OrderedDict()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._thumbnail_bytes = 0
        self._parts: OrderedDict[str, Part] = OrderedDict()

    def opened(self, manifest_sha256: str, name: str) -> OpenedDataset:
        """The data set of a manifest. Raises UnknownArtifact, CorruptArtifact."""
        # Held while it is read, so that ten who ask for a new one do not read it ten times.
        with self._lock:
            found = self._opened.get(manifest_sha256)
            if found is None:
                content = self._artifacts.read_bytes(manifest_sha256)
                stored = read_stored(content, name, self._artifacts.read_bytes)
                found = self._opened[manifest_sha256] = OpenedDataset(stored.dataset, stored.columns)
            self._opened.move_to_end(manifest_sha256)
            while len(self._opened) > 1 and self._n_samples() > _MAX_SAMPLES:
                self._opened.popitem(last=False)
            return found

    def thumbnail(self, opened: OpenedDataset, number: int) -> bytes | None:
        """The small picture of an image: from the import, or one that was made since; None where there is none.

        Raises UnknownArtifact, CorruptArtifact, CorruptIndex.
        """
        if opened.columns is not None:
            part, row = opened.columns.picture_at(number)
            return self._part(part).picture(row)
        sha256 = opened.dataset.bytes_sha256[number]
        with self._lock:
            found = self._thumbnails.get(sha256)
            if found is not None:
                self._thumbnails.move_to_end(sha256)
            return found

    def keep_thumbnail(self, sha256: str, content: bytes) -> None:
        """Keeps one for who asks next; those that nobody asked for are dropped."""
        with self._lock:
            replaced = self._thumbnails.pop(sha256, b"")
            self._thumbnails[sha256] = content
            self._thumbnail_bytes += len(content) - len(replaced)
            while self._thumbnail_bytes > _MAX_THUMBNAIL_BYTES:
                _, dropped = self._thumbnails.popitem(last=False)
                self._thumbnail_bytes -= len(dropped)

    def _part(self, sha256: str) -> Part:
        with self._lock:
            found = self._parts.get(sha256)
        if found is None:
            found = open_part(self._artifacts.local_path(sha256))
        with self._lock:
            self._parts[sha256] = found
            self._parts.move_to_end(sha256)
            while len(self._parts) > _MAX_PARTS:
                self._parts.popitem(last=False)
        return found

    def _n_samples(self) -> int:
        return sum(len(o.dataset) for o in self._opened.values())
