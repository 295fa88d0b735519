"""An imported data set: a manifest of JSON lines, and images by the hash of their bytes.

The first line names version, classes and the parts with small pictures, each further one is a sample whose `source` is
the sha256 of its image (and `mask_path` that of its mask), with what the import found out about it. So the digest is
known without reading an image, and it is that of the data set where it was imported from.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.byte_sources import ByteHashes, Progress
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import CorruptArtifact

VERSION: Final = 2
_READ: Final = (1, 2)  # the first had samples only
# What stands in a line beside the fields of a sample.
_FACTS: Final = ("width", "height", "pixels_sha256", "phash", "row", "cluster")

# The bytes of an artifact. Raises UnknownArtifact, CorruptArtifact.
ReadArtifact = Callable[[str], bytes]


@dataclass(frozen=True)
class StoredSource:
    """Images among the artifacts; the `source` of a sample is the hash."""

    read_artifact: ReadArtifact

    def read(self, source: str) -> bytes:
        """The encoded image."""
        return self.read_artifact(source)

    def stamp(self, source: str) -> tuple[int, int]:
        """Bytes under a hash never change."""
        return 0, 0


@dataclass(frozen=True)
class StoredHashes(ByteHashes):
    """Hashes that are known without reading."""

    def sha256(self, source: str) -> str:
        """The source itself."""
        return source

    def sha256_of(
        self, sources: Sequence[str], *, n_threads: int | None = None, progress: Progress | None = None
    ) -> list[str]:
        """The sources themselves."""
        return list(sources)


@dataclass(frozen=True)
class ImportedColumns:
    """What an import found out, in the order of the samples."""

    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    pixels_sha256: tuple[str, ...]
    phashes: NDArray[np.uint64]
    rows: NDArray[np.int64]  # among all images of the source: part * images_per_part + row in the part
    clusters: NDArray[np.int64]  # duplicates share the smallest row of them
    parts: tuple[str, ...]  # artifacts with small pictures
    images_per_part: int

    def picture_at(self, number: int) -> tuple[str, int]:
        """Part with the small picture of an image, and its row there."""
        part, row = divmod(int(self.rows[number]), self.images_per_part)
        return self.parts[part], row


@dataclass(frozen=True)
class StoredDataset:
    """A data set as it was imported; `columns` is None for a manifest of the first version."""

    dataset: Dataset
    columns: ImportedColumns | None


def stored_dataset(
    dataset: Dataset,
    bytes_sha256: Sequence[str],
    masks_sha256: Sequence[str | None],
    read_artifact: ReadArtifact,
) -> Dataset:
    """The same data set with its images and masks among the artifacts."""
    samples = tuple(
        dataclasses.replace(sample, source=sha256, mask_path=mask)
        for sample, sha256, mask in zip(dataset.samples, bytes_sha256, masks_sha256, strict=True)
    )
    hashes = StoredHashes(StoredSource(read_artifact))
    return Dataset(dataset.name, Path(), samples, dataset.class_names, hashes)


def write_manifest(dataset: Dataset, columns: ImportedColumns | None = None) -> bytes:
    """The manifest of a data set whose images are (or will be) artifacts.

    Without `columns`, that of one that was read from files: masks are left out.
    """
    head: dict[str, Any] = {"version": VERSION, "class_names": dataset.class_names}
    if columns is not None:
        head |= {"parts": columns.parts, "images_per_part": columns.images_per_part}
    lines = [json.dumps(head)]
    for i, (sample, sha256) in enumerate(zip(dataset.samples, dataset.bytes_sha256, strict=True)):
        mask = None if columns is None else sample.mask_path
        row = dataclasses.asdict(dataclasses.replace(sample, source=sha256, mask_path=mask))
        if columns is not None:
            row |= {
                "width": int(columns.widths[i]),
                "height": int(columns.heights[i]),
                "pixels_sha256": columns.pixels_sha256[i],
                "phash": f"{int(columns.phashes[i]):016x}",
                "row": int(columns.rows[i]),
                "cluster": int(columns.clusters[i]),
            }
        lines.append(json.dumps({name: value for name, value in row.items() if value not in (None, {})}))
    return "\n".join([*lines, ""]).encode()


def read_manifest(content: bytes, name: str, read_artifact: ReadArtifact) -> Dataset:
    """The data set; no image is read. Raises CorruptArtifact for what `write_manifest` did not write."""
    return read_stored(content, name, read_artifact).dataset


def read_stored(content: bytes, name: str, read_artifact: ReadArtifact) -> StoredDataset:
    """The data set with what its import found out. Raises as `read_manifest` does."""
    try:
        first, *rows = content.decode().splitlines()
        head = json.loads(first)
        if head["version"] not in _READ:
            raise ValueError(f"version {head['version']}")
        facts: list[tuple[Any, ...]] = []
        samples = []
        for line in rows:
            row = json.loads(line)
            found = tuple(row.pop(f, None) for f in _FACTS)
            samples.append(Sample(**row))
            if "parts" in head:
                facts.append(found)
        columns = _columns(facts, head) if "parts" in head else None
        class_names = tuple(head["class_names"])
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptArtifact(f"the manifest of the data set {name!r} cannot be read: {error}") from error
    hashes = StoredHashes(StoredSource(read_artifact))
    duplicates = {} if columns is None else _duplicates(samples, columns.clusters)
    return StoredDataset(Dataset(name, Path(), tuple(samples), class_names, hashes, duplicates), columns)


def _duplicates(samples: Sequence[Sample], clusters: NDArray[np.int64]) -> dict[str, str]:
    numbers, counts = np.unique(clusters, return_counts=True)
    several = set(numbers[counts > 1].tolist())
    return {s.id: str(c) for s, c in zip(samples, clusters.tolist(), strict=True) if c in several}


def _columns(facts: Sequence[tuple[Any, ...]], head: dict[str, Any]) -> ImportedColumns:
    widths, heights, pixels, phashes, rows, clusters = zip(*facts, strict=True)
    return ImportedColumns(
        np.array(widths, dtype=np.int64),
        np.array(heights, dtype=np.int64),
        tuple(pixels),
        np.array([int(p, 16) for p in phashes], dtype=np.uint64),
        np.array(rows, dtype=np.int64),
        np.array(clusters, dtype=np.int64),
        tuple(head["parts"]),
        int(head["images_per_part"]),
    )
