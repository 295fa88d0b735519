"""Bytes by the hash of their content: images, SAE weights, exports.

In a folder (`file:///data/artifacts`) or a bucket (`s3://bucket/prefix`, with the options `?endpoint_url=...` and
`&cache=FOLDER`; keys come from where AWS tools look for them). An artifact is written once, appears whole or not at
all, and is checked whenever it is read.
"""

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import fsspec

from fulcrum.domain.errors import (
    CorruptArtifact,
    InvalidSettings,
    MissingDependency,
    PayloadTooLarge,
    ServiceUnavailable,
    UnknownArtifact,
)

CHUNK_BYTES = 1 << 20
INCOMING = ".incoming"  # where uploads grow until their hash is known
ABANDONED_S = 24 * 3600.0  # an upload that did not grow for so long has lost its process
RETRY_AFTER_S = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Incoming:
    """An artifact on its way in: `write` chunks, then `commit`. Without commit nothing stays."""

    def __init__(self, artifacts: "Artifacts", max_bytes: int | None) -> None:
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        with artifacts._reached():
            artifacts._incoming.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=artifacts._incoming)
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises PayloadTooLarge beyond `max_bytes`."""
        self.size_bytes += len(chunk)
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise PayloadTooLarge(f"more than {self._max_bytes} bytes were sent, which is the limit")
        self._hash.update(chunk)
        with self._artifacts._reached():
            self._file.write(chunk)

    def commit(self, expected_sha256: str | None = None) -> tuple[str, int]:
        """Hash and size, once the bytes are safe. Raises CorruptArtifact if another hash was promised."""
        sha256 = self._hash.hexdigest()
        if expected_sha256 is not None and sha256 != expected_sha256:
            raise CorruptArtifact(
                f"the bytes have the hash {sha256}, not {expected_sha256[:80]!r} as announced"
            )
        with self._artifacts._reached():
            self._finish()
            self._artifacts._place(self._path, sha256)
        return sha256, self.size_bytes

    def _finish(self) -> None:
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o644)  # temporary files are closed to the other services
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


class Reading:
    """An artifact on its way out, hashed as it passes: altered bytes raise CorruptArtifact before the last of them."""

    def __init__(self, artifacts: "Artifacts", file: IO[bytes], sha256: str, size_bytes: int) -> None:
        self._artifacts = artifacts
        self._file = file
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self._n_read = 0
        self.size_bytes = size_bytes

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """The next bytes, at most `size`, all for -1; empty at the end. Raises CorruptArtifact for altered ones."""
        with self._artifacts._reached(self._sha256):
            chunk = self._file.read(size)
        self._hash.update(chunk)
        self._n_read += len(chunk)
        # Not only at the end: who knows the size stops reading there.
        complete = self._n_read >= self.size_bytes or (not chunk and size != 0)
        if complete and self._hash.hexdigest() != self._sha256:
            raise CorruptArtifact(
                f"the stored bytes of {self._sha256} were altered: their hash is another one"
            )
        return chunk

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


class Artifacts:
    """Content-addressed bytes below one root. Safe to share between threads, and between processes.

    Every verb raises ServiceUnavailable when folder or bucket cannot be reached or written.
    """

    def __init__(
        self,
        filesystem: Any,
        root: str,
        *,
        is_local: bool,
        cache: Path,
        failures: tuple[type[Exception], ...] = (OSError,),
    ) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._is_local = is_local
        self._cache = cache
        self._failures = failures
        self._incoming = cache / INCOMING
        self._sweep()

    def incoming(self, max_bytes: int | None = None) -> Incoming:
        """A place to write chunks to as they arrive; use it as a context."""
        return Incoming(self, max_bytes)

    def put_stream(
        self, chunks: Iterable[bytes], *, max_bytes: int | None = None, expected_sha256: str | None = None
    ) -> tuple[str, int]:
        """Keep the bytes; hash and size. Raises PayloadTooLarge, CorruptArtifact if another hash was promised."""
        with self.incoming(max_bytes) as file:
            for chunk in chunks:
                file.write(chunk)
            return file.commit(expected_sha256)

    def put_bytes(self, content: bytes) -> str:
        """Keep the bytes; their hash."""
        return self.put_stream([content])[0]

    def exists(self, sha256: str) -> bool:
        """Whether there is such an artifact."""
        if _SHA256.fullmatch(sha256) is None:
            return False
        with self._reached():
            return bool(self._fs.exists(self._path(sha256)))

    def size(self, sha256: str) -> int:
        """Bytes of the artifact. Raises UnknownArtifact."""
        with self._reached(sha256):
            return int(self._fs.size(self._path(sha256)))

    def open(self, sha256: str) -> Reading:
        """The bytes as a stream; use it as a context. Raises UnknownArtifact."""
        size_bytes = self.size(sha256)
        with self._reached(sha256):
            return Reading(self, self._fs.open(self._path(sha256), "rb"), sha256, size_bytes)

    def read_bytes(self, sha256: str, max_bytes: int | None = None) -> bytes:
        """All bytes, checked. Raises UnknownArtifact, CorruptArtifact, PayloadTooLarge beyond `max_bytes`."""
        with self.open(sha256) as reading:
            if max_bytes is not None and reading.size_bytes > max_bytes:
                raise PayloadTooLarge(
                    f"artifact {sha256} has {reading.size_bytes} bytes: the limit is {max_bytes}"
                )
            return b"".join(reading)

    def delete(self, sha256: str) -> None:
        """Remove it. Raises UnknownArtifact."""
        self.size(sha256)  # a bucket deletes what it does not have without a word
        with self._reached(sha256):
            self._fs.rm_file(self._path(sha256))
        if not self._is_local:
            self._cached(sha256).unlink(missing_ok=True)

    def local_path(self, sha256: str) -> Path:
        """A checked local file with the bytes, for loaders that need a path. Read it only.

        Raises UnknownArtifact, CorruptArtifact.
        """
        if self._is_local:
            with self.open(sha256) as reading:
                for _ in reading:
                    pass
            return Path(self._path(sha256))
        cached = self._cached(sha256)
        if cached.exists() and _hash_of(cached) == sha256:
            return cached
        cached.parent.mkdir(parents=True, exist_ok=True)
        with self.open(sha256) as reading, self.incoming() as copy:
            for chunk in reading:
                copy.write(chunk)
            with self._reached():
                copy._finish()
                os.replace(copy._path, cached)
        return cached

    def close(self) -> None:
        """End the connections to a bucket; nothing more can be put or read."""
        self._fs = None  # nobody else has it, and its end closes them

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, sha256: str) -> str:
        # Hashes come from clients; nothing but a hash ever becomes part of a path.
        if _SHA256.fullmatch(sha256) is None:
            raise _unknown(sha256)
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _cached(self, sha256: str) -> Path:
        self._path(sha256)  # refuses what is no hash
        return self._cache / sha256[:2] / sha256

    @contextmanager
    def _reached(self, sha256: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if sha256 is not None:
                raise _unknown(sha256) from None
            raise ServiceUnavailable(
                f"the place of the artifacts is not there: {error}", RETRY_AFTER_S
            ) from error
        except self._failures as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise ServiceUnavailable("the disk of the artifacts is full", RETRY_AFTER_S) from error
            raise ServiceUnavailable(f"the artifacts cannot be reached: {error}", RETRY_AFTER_S) from error

    def _sweep(self) -> None:
        # What a killed process left behind; a running upload touches its file all the time.
        before = time.time() - ABANDONED_S
        for path in self._incoming.glob("tmp*"):
            with suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _place(self, source: Path, sha256: str) -> None:
        target = self._path(sha256)
        if not self._is_local:
            self._fs.put_file(str(source), target)  # a bucket shows an object when it is complete
            return
        folder = Path(target).parent
        folder.mkdir(parents=True, exist_ok=True)
        # Also over an existing one: the same bytes again, or the repair of altered ones.
        os.replace(source, target)
        with suppress(OSError):  # not every file system lets a folder be flushed
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def open_artifacts(url: str, cache: Path | None = None) -> Artifacts:
    """The artifacts at `file:///FOLDER` or `s3://BUCKET/PREFIX`; `cache` is for local copies of a bucket's.

    Raises InvalidSettings for another URL, MissingDependency without s3fs.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidSettings(
                f"the artifacts are at {url!r}: expected file:///FOLDER with an absolute path"
            )
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(f"artifacts cannot be kept in {folder}: {error}") from error
        return Artifacts(fsspec.filesystem("file"), str(folder), is_local=True, cache=folder)
    if parts.scheme != "s3" or not parts.netloc:
        raise InvalidSettings(f"the artifacts are at {url!r}: expected file:///FOLDER or s3://BUCKET/PREFIX")
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - {"endpoint_url", "cache"})
    if unknown:
        raise InvalidSettings(
            f"the URL of the artifacts has the option {unknown[0]!r}: expected endpoint_url or cache"
        )
    # Not in a shared folder for temporary files: what is checked there could be another file when it is loaded.
    folder = cache or Path(options.get("cache") or Path.home() / ".cache" / "fulcrum" / "artifacts")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidSettings(f"copies of artifacts cannot be kept in {folder}: {error}") from error
    filesystem, failures = open_s3(options.get("endpoint_url"))
    root = parts.netloc + parts.path
    return Artifacts(filesystem, root, is_local=False, cache=folder, failures=failures)


def open_s3(endpoint_url: str | None) -> tuple[Any, tuple[type[Exception], ...]]:
    """A file system of buckets, and what it raises. Raises MissingDependency."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # has none

        filesystem = fsspec.filesystem(
            "s3",
            endpoint_url=endpoint_url,
            use_listings_cache=False,  # another process may add or remove an object at any time
            skip_instance_cache=True,
            # The default tries for half a minute; who asks can come back.
            config_kwargs={"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}},
        )
    except ImportError as error:
        raise MissingDependency("artifacts in a bucket need s3fs: install fulcrum[s3]") from error
    return filesystem, (OSError, BotoCoreError, ClientError)


def _unknown(sha256: str) -> UnknownArtifact:
    return UnknownArtifact(f"no artifact with the content hash {sha256[:80]!r}")


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
