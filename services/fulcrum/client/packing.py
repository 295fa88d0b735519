"""A data set on this machine as the body of an upload: an archive as it is, a folder packed into a tar on the way.

The same folder gives the same bytes: times and owners are left out, so the platform knows what it has already.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fulcrum.client.steps import Body
from fulcrum.domain.errors import InvalidRequest

Sent = Callable[[int, int], None]  # (bytes that were read, all of them)

# Images, masks, and the files that say something about them; everything else stays here.
KEPT_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".csv",
        ".jsonl",
        ".parquet",
        ".json",
        ".txt",
        ".cls",
        ".arrow",
        ".tar",
    }
)
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK = 1 << 20


def body_of(path: Path, on_sent: Sent | None = None) -> Body:
    """What to send for a folder or an archive. Raises InvalidRequest for anything else."""
    place = path.expanduser()
    if place.is_dir():
        return FolderBody(place, on_sent)
    if not place.exists():
        raise InvalidRequest(f"{str(path)!r} does not exist: expected a folder or an archive")
    if not place.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InvalidRequest(
            f"{str(path)!r} is no archive ({', '.join(ARCHIVE_SUFFIXES)}): name the folder with images and manifest"
        )
    return ArchiveBody(place, on_sent)


@dataclass(frozen=True)
class ArchiveBody:
    """A file as it is."""

    path: Path
    on_sent: Sent | None = None

    def size_bytes(self) -> int | None:
        """Of the file."""
        return self._stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """The file."""
        total, sent = self._stat().st_size, 0
        for chunk in _read(self.path):
            yield chunk
            sent += len(chunk)
            if self.on_sent is not None:
                self.on_sent(sent, total)

    def _stat(self) -> os.stat_result:
        try:
            return self.path.stat()
        except OSError as error:
            raise InvalidRequest(f"{str(self.path)!r} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class FolderBody:
    """A folder as a tar. Hidden files stay out; links to files are followed, since many data sets consist of them."""

    path: Path
    on_sent: Sent | None = None

    def size_bytes(self) -> int | None:
        """Not known before: headers of long names take room."""
        return None

    def chunks(self) -> Iterator[bytes]:
        """A tar of it. Raises InvalidRequest where nothing is in it that the platform reads."""
        files = list(self._files())
        if not files:
            raise InvalidRequest(f"{str(self.path)!r} holds no image: expected PNG, JPEG or WebP files")
        total, sent = sum(size for _, size in files), 0
        for name, size in files:
            yield _header(name, size)
            left = size
            for chunk in _read(self.path / name):
                if len(chunk) > left:
                    raise _changed(name)
                yield chunk
                left -= len(chunk)
                sent += len(chunk)
                if self.on_sent is not None:
                    self.on_sent(sent, total)
            if left:
                raise _changed(name)
            if size % tarfile.BLOCKSIZE:
                yield bytes(tarfile.BLOCKSIZE - size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _files(self) -> Iterator[tuple[str, int]]:
        """Relative name and size of each file, in order."""
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = sorted(d for d in subfolders if not d.startswith(".") and d != "__MACOSX")
            for subfolder in subfolders:
                if os.path.islink(os.path.join(folder, subfolder)):
                    raise InvalidRequest(
                        f"{os.path.join(folder, subfolder)!r} is a link to a folder: links to folders are not followed"
                    )
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or PurePosixPath(name).suffix.lower() not in KEPT_SUFFIXES:
                    continue
                if not path.is_file():
                    raise InvalidRequest(f"{str(path)!r} is no file, or a link that leads nowhere")
                yield path.relative_to(self.path).as_posix(), path.stat().st_size


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    except UnicodeEncodeError:
        raise InvalidRequest(f"the name {name!r} is not UTF-8: give the file another one") from None


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InvalidRequest(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _changed(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name!r} changed while it was read: try again")
