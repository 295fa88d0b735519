"""Buckets of others, which are only read: what lies below a prefix, and how it comes to this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fulcrum.domain.errors import InvalidSettings, MissingFiles, ServiceUnavailable, UnknownDataset
from fulcrum.store.artifacts import RETRY_AFTER_S, open_s3

BUCKET = "bucket:"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BucketObject:
    """An object by its name below the prefix; "" when the prefix is the object. `mark` changes with its content."""

    name: str
    size_bytes: int
    mark: str


class Bucket:
    """Safe to share between threads. Every verb raises ServiceUnavailable when the bucket cannot be reached."""

    def __init__(self, filesystem: Any, root: str, failures: tuple[type[Exception], ...]) -> None:
        self._fs, self._root, self._failures = filesystem, root.strip("/"), failures

    def objects(self, prefix: str) -> Iterator[BucketObject]:
        """All below the prefix, in the order of their names."""
        base = self._path(prefix)
        with self._reached(prefix):
            found = self._fs.find(base, detail=True)
        for path in sorted(found):
            entry = found[path]
            if entry.get("type") == "file":
                mark = str(entry.get("ETag") or entry.get("LastModified") or "")
                yield BucketObject(path[len(base) :].lstrip("/"), int(entry["size"]), mark)

    def fetch(self, prefix: str, found: BucketObject, target: Path) -> None:
        """Writes an object to a file. Raises MissingFiles when it is gone or another one by now, OSError."""
        path = self._path(prefix) + (f"/{found.name}" if found.name else "")
        size, name = 0, found.name or prefix
        with target.open("wb") as file:
            with self._reached(name):
                source = self._fs.open(path, "rb")
            with source:
                while chunk := self._read(source, name):
                    size += len(chunk)
                    file.write(chunk)
        if size != found.size_bytes:
            raise MissingFiles(f"{found.name or prefix!r} changed while it was fetched: try again")

    def _read(self, source: Any, name: str) -> bytes:
        with self._reached(name):
            chunk: bytes = source.read(_CHUNK)
        return chunk

    def _path(self, prefix: str) -> str:
        return f"{self._root}/{prefix}".rstrip("/")

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MissingFiles(f"{name!r} is not in the bucket") from error
        except self._failures as error:
            raise ServiceUnavailable(f"the bucket cannot be read: {error}", RETRY_AFTER_S) from error


def open_bucket(url: str) -> Bucket:
    """The bucket at `s3://BUCKET/PREFIX`, with the option `?endpoint_url=...`; keys come from where AWS tools look.

    Raises InvalidSettings for another URL, MissingDependency without s3fs.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme != "s3" or not parts.netloc or set(options) - {"endpoint_url"}:
        raise InvalidSettings(
            f"a bucket is at {url!r}: expected s3://BUCKET/PREFIX, with ?endpoint_url=... where it is not Amazon's"
        )
    filesystem, failures = open_s3(options.get("endpoint_url"))
    return Bucket(filesystem, parts.netloc + parts.path, failures)


def named_bucket(buckets: Mapping[str, str], reference: str) -> tuple[Bucket, str]:
    """The bucket of `bucket:NAME/prefix`, and the prefix. Raises UnknownDataset for what may not be named."""
    name, _, prefix = reference.removeprefix(BUCKET).partition("/")
    if name not in buckets:
        names = ", ".join(sorted(buckets)) or "none"
        raise UnknownDataset(
            f"{reference[:200]!r}: there is no bucket {name[:80]!r}, the buckets are {names}"
        )
    # Names of objects are no paths, but what we make of them are.
    if ".." in prefix.split("/") or "\\" in prefix or not prefix.isprintable():
        raise UnknownDataset(f"{reference[:200]!r}: below the bucket only plain names are allowed, no '..'")
    return open_bucket(buckets[name]), prefix.strip("/")
