"""Where the bytes of an image come from, and their hashes."""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fulcrum.domain.errors import InvalidDataset, MissingFiles

Progress = Callable[[int, int], None]  # (done, total)


class ByteSource(Protocol):
    """Reads encoded images by the `source` of their sample; safe to call from several threads."""

    def read(self, source: str) -> bytes:
        """The encoded image. Raises MissingFiles when it is gone."""
        ...

    def stamp(self, source: str) -> tuple[int, int]:
        """(size in bytes, mtime_ns) without reading: unchanged as long as the bytes are."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Files below a folder; `source` is the path relative to it, checked when the data set was loaded."""

    root: Path

    def read(self, source: str) -> bytes:
        """Bytes of one file. Raises MissingFiles, or InvalidDataset when it may not be read."""
        try:
            return (self.root / source).read_bytes()
        except FileNotFoundError as error:
            raise MissingFiles(f"{source!r} is no longer in {self.root.name!r}") from error
        except OSError as error:
            raise InvalidDataset(
                f"{source!r} in {self.root.name!r} cannot be read: {error.strerror}"
            ) from error

    def stamp(self, source: str) -> tuple[int, int]:
        """Size and mtime of one file."""
        try:
            stat = os.stat(self.root / source)
        except OSError as error:
            raise MissingFiles(f"{source!r} is no longer in {self.root.name!r}") from error
        return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class ByteHashes:
    """sha256 of encoded images, remembered in memory as long as size and mtime of the file stay the same."""

    byte_source: ByteSource
    _known: dict[str, tuple[tuple[int, int], str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sha256(self, source: str) -> str:
        """Hex digest of one image."""
        stamp = self.byte_source.stamp(source)
        with self._lock:
            known = self._known.get(source)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = hashlib.sha256(self.byte_source.read(source)).hexdigest()
        with self._lock:
            self._known[source] = (stamp, digest)
        return digest

    def sha256_of(
        self, sources: Sequence[str], *, n_threads: int | None = None, progress: Progress | None = None
    ) -> list[str]:
        """Hex digests in the order of `sources`, read by a pool of threads."""
        digests: list[str] = []
        # hashlib and file reads release the interpreter lock, so threads are enough.
        with ThreadPoolExecutor(n_threads or min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(sources), 4096):
                digests += pool.map(self.sha256, sources[start : start + 4096])
                if progress is not None:
                    progress(len(digests), len(sources))
        return digests
