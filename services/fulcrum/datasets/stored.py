"""An imported data set: a manifest of JSON lines, and images by the hash of their bytes.

The first line names version and classes, each further one is a sample whose `source` is the sha256 of its image. So the
digest is known without reading an image, and it is that of the data set where it was imported from.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fulcrum.datasets.byte_sources import ByteHashes, Progress
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import CorruptArtifact

VERSION = 1

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


def write_manifest(dataset: Dataset) -> bytes:
    """The manifest of a data set whose images are (or will be) artifacts. Masks are not kept."""
    lines = [json.dumps({"version": VERSION, "class_names": dataset.class_names})]
    for sample, sha256 in zip(dataset.samples, dataset.bytes_sha256, strict=True):
        row = dataclasses.asdict(dataclasses.replace(sample, source=sha256, mask_path=None))
        lines.append(json.dumps({name: value for name, value in row.items() if value not in (None, {})}))
    return "\n".join([*lines, ""]).encode()


def read_manifest(content: bytes, name: str, read_artifact: ReadArtifact) -> Dataset:
    """The data set; no image is read. Raises CorruptArtifact for what `write_manifest` did not write."""
    try:
        first, *rows = content.decode().splitlines()
        head = json.loads(first)
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']}")
        samples = tuple(Sample(**json.loads(row)) for row in rows)
        class_names = tuple(head["class_names"])
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptArtifact(f"the manifest of the data set {name!r} cannot be read: {error}") from error
    return Dataset(name, Path(), samples, class_names, StoredHashes(StoredSource(read_artifact)))
