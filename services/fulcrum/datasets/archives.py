"""Archives of strangers: zip, tar and tar.gz unpacked below one folder, or refused with words.

Nothing in an archive is believed. Only plain files with plain relative names come out, and every size is counted while
bytes are written, since headers lie.
"""

import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from fulcrum.datasets.formats.paths import IMAGE_SUFFIXES, relative_source
from fulcrum.domain.errors import InvalidDataset, PayloadTooLarge

Progress = Callable[[int, int], None]  # (bytes of the archive that were read, all of them)

# What the formats read: images, masks and the files that say something about them.
KEPT_SUFFIXES: Final = IMAGE_SUFFIXES | {
    ".csv",
    ".jsonl",
    ".parquet",
    ".json",
    ".txt",
    ".cls",
    ".arrow",
    ".tar",
}
_ARCHIVES: Final = frozenset({".zip", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_CHUNK: Final = 1 << 20
# Of a tar's own headers (long names, PAX records): tarfile reads them whole, whatever size they state.
_MAX_HEADER: Final = 1 << 20
_MAX_NAME: Final = 1000
_MAX_DEPTH: Final = 32
_PLAIN_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may claim gigabytes to unpack
_ZIP_ENTRY_BYTES: Final = 46  # of a name of no length in a zip's directory


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold. `max_ratio` is bytes that come out over bytes of the archive."""

    max_files: int = 1_500_000
    max_bytes: int = 500 << 30
    max_file_bytes: int = 64 << 30
    # Images hardly shrink any further; text with many rows does, by 20 and more.
    max_ratio: float = 100.0
    # A few empty rows of a manifest shrink a thousandfold and harm nobody.
    ratio_from_bytes: int = 64 << 20


DEFAULT_ARCHIVE_LIMITS: Final = ArchiveLimits()


def unpack(
    archive: Path,
    folder: Path,
    *,
    limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
    progress: Progress | None = None,
) -> int:
    """Files written below `folder`, which must be empty; after an error throw away what is in it.

    Hidden files and those that no format reads are passed over. Raises InvalidDataset for what is no archive or holds
    what it may not, PayloadTooLarge beyond the limits, OSError where the folder cannot be written.
    """
    size = archive.stat().st_size
    with archive.open("rb") as file:
        beginning = file.read(4)
        file.seek(0)
        out = _Out(folder, limits, size)
        with _readable():
            if beginning[:2] == b"PK":
                _unzip(file, size, out, progress)
            elif beginning[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    _untar(_Counted(unzipped, out), out, _told(file, size, progress))
            else:
                _untar(_Counted(file, out), out, _told(file, size, progress))
    if not out.n_files:
        raise InvalidDataset(
            f"the archive holds no file that we read: expected images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return out.n_files


def is_webdataset_shard(archive: Path) -> bool:
    """Whether a tar is one itself: one of its first images has a `.cls` or `.json` of the same key beside it."""
    try:
        size = archive.stat().st_size
        with (
            archive.open("rb") as file,
            _open_tar(_Counted(file, _Out(Path(), DEFAULT_ARCHIVE_LIMITS, size))) as tar,
        ):
            seen: set[tuple[str, str]] = set()
            for n, member in enumerate(tar):
                tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                if n >= 64 or member.size < 0:
                    return False
                stem, dot, extension = PurePosixPath(member.name).name.partition(".")
                key = f"{PurePosixPath(member.name).parent}/{stem}"
                kind = "image" if f".{extension}" in IMAGE_SUFFIXES else extension
                if not dot or kind not in ("image", "cls", "json"):
                    continue
                if kind != "image" and (key, "image") in seen:
                    return True
                if kind == "image" and ((key, "cls") in seen or (key, "json") in seen):
                    return True
                seen.add((key, kind))
    except (tarfile.TarError, OSError, ValueError, EOFError, InvalidDataset):
        return False
    return False


def content_root(folder: Path, split_names: frozenset[str]) -> Path:
    """The folder itself, or the one folder that everything in it lies in, as most programs pack: its name means
    nothing, unless it is that of a split.
    """
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name not in split_names:
        return entries[0]
    return folder


class _Out:
    """Where files go, and how much has come out so far."""

    def __init__(self, folder: Path, limits: ArchiveLimits, archive_bytes: int) -> None:
        self._folder, self._limits = folder, limits
        self._allowed = max(limits.ratio_from_bytes, int(limits.max_ratio * archive_bytes))
        self._archive_bytes = archive_bytes
        self._names: set[str] = set()
        self._made: set[Path] = set()
        self.max_files = limits.max_files
        self.n_members = self.n_files = self.n_bytes = 0

    def folder(self, name: str) -> None:
        """Make a folder, also where nothing will lie in it: an empty split is a mistake that must show."""
        if name.rstrip("/") in ("", "."):
            return
        checked, parts = self._checked(name)
        if any(p.startswith(".") for p in parts) or parts[0] == "__MACOSX":
            return
        try:
            (self._folder / checked).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidDataset(f"the archive: {checked!r} is a file and a folder") from None

    def member(self, name: str) -> str | None:
        """The checked name of a plain file that is wanted, None for one that is passed over."""
        checked, parts = self._checked(name)
        if any(p.startswith(".") for p in parts) or parts[0] == "__MACOSX":
            return None
        suffix = PurePosixPath(checked).suffix.lower()
        if suffix in _ARCHIVES:
            raise InvalidDataset(
                f"the archive holds another one, {checked!r}: archives in archives are not unpacked"
            )
        if suffix not in KEPT_SUFFIXES:
            return None
        if checked in self._names:
            raise InvalidDataset(f"the archive holds {checked!r} twice")
        self._names.add(checked)
        return checked

    def _checked(self, name: str) -> tuple[str, tuple[str, ...]]:
        self.n_members += 1
        if self.n_members > self._limits.max_files:
            raise PayloadTooLarge(f"the archive holds more than {self._limits.max_files} files")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidDataset(f"the archive: the name {name!r} is not UTF-8") from None
        checked = relative_source(name, "the archive")
        parts = PurePosixPath(checked).parts
        if len(checked) > _MAX_NAME or len(parts) > _MAX_DEPTH:
            raise InvalidDataset(
                f"the archive: the name {checked[:80]!r}... has {len(checked)} characters in {len(parts)} folders: "
                f"at most {_MAX_NAME} and {_MAX_DEPTH} are allowed"
            )
        if not checked.isprintable():
            raise InvalidDataset(f"the archive: the name {checked!r} holds control characters")
        return checked, parts

    def write(self, name: str, read: Callable[[int], bytes], counted: bool) -> int:
        """Copy one file; its size. `counted`: whoever reads counts its bytes."""
        target = self._folder / name
        try:
            if target.parent not in self._made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(target.parent)
            # Never over something that is there, and never through a link: there are none, but it costs nothing.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(target, flags, 0o600)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise InvalidDataset(f"the archive: {name!r} is a file and a folder") from None
        size = 0
        with os.fdopen(handle, "wb") as file:
            while chunk := read(_CHUNK):
                size += len(chunk)
                if size > self._limits.max_file_bytes:
                    raise PayloadTooLarge(
                        f"the archive: {name!r} has more than {self._limits.max_file_bytes} bytes"
                    )
                if not counted:
                    self.count(len(chunk))
                file.write(chunk)
        self.n_files += 1
        return size

    def count(self, n: int) -> None:
        """So many bytes have come out. Raises PayloadTooLarge."""
        self.n_bytes += n
        if self.n_bytes > self._limits.max_bytes:
            raise PayloadTooLarge(f"the archive unpacks to more than {self._limits.max_bytes} bytes")
        if self.n_bytes > self._allowed:
            raise PayloadTooLarge(
                f"the archive of {self._archive_bytes} bytes unpacks to more than {self._allowed}: "
                f"images do not shrink by more than {self._limits.max_ratio:g}"
            )


class _Counted:
    """A tar as `tarfile` reads it: only forwards, every byte counted, no header of gigabytes."""

    def __init__(self, file: "IO[bytes] | gzip.GzipFile", out: _Out) -> None:
        self._file, self._out = file, out
        self._at = 0
        self._last = b""
        self.in_member = False

    def read(self, size: int = -1) -> bytes:
        if not self.in_member and (size < 0 or size > _MAX_HEADER):
            raise InvalidDataset(
                f"the archive has a header of {size} bytes: at most {_MAX_HEADER} are allowed"
            )
        chunk = self._file.read(size)
        self._at += len(chunk)
        self._out.count(len(chunk))
        if not self.in_member:
            self._last = chunk
        return chunk

    @property
    def ended(self) -> bool:
        """Whether the last header was the empty one that ends every tar."""
        return len(self._last) == tarfile.BLOCKSIZE and not any(self._last)

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        if position < self._at:
            raise InvalidDataset("the archive cannot be read in one go: its headers lead back")
        while self._at < position:
            chunk = self._file.read(min(_CHUNK, position - self._at))
            if not chunk:
                break  # tarfile then finds the end where there should be none
            self._at += len(chunk)
            self._out.count(len(chunk))
        return self._at


def _open_tar(file: _Counted) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(Any, file), mode="r:")  # it needs no more of a file than this has


def _untar(file: _Counted, out: _Out, tell: Callable[[], None]) -> None:
    with _open_tar(file) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would remember a million of them
            tell()
            if member.isdir():
                out.folder(member.name)
                continue
            if not member.isreg() or member.issparse():
                kind = "link" if member.issym() or member.islnk() else "device or sparse file"
                raise InvalidDataset(f"the archive: {member.name!r} is a {kind}; only plain files are read")
            name = out.member(member.name)
            if name is None:
                continue
            content = tar.extractfile(member)
            assert content is not None
            file.in_member = True
            if out.write(name, content.read, counted=True) != member.size:
                raise InvalidDataset(f"the archive is cut off inside {name!r}")
            file.in_member = False
    # tarfile takes the end of the file for the end of the archive, also where half of its files are missing.
    if not file.ended:
        raise InvalidDataset("the archive is cut off: a tar ends with empty blocks")


def _unzip(file: IO[bytes], size: int, out: _Out, progress: Progress | None) -> None:
    _check_directory(file, size, out)
    with zipfile.ZipFile(file) as found:
        for entry in found.infolist():
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))):
                kind = "link" if stat.S_ISLNK(mode) else "device"
                raise InvalidDataset(
                    f"the archive: {entry.filename!r} is a {kind}; only plain files are read"
                )
            if progress is not None:
                progress(min(entry.header_offset, size), size)
            if entry.is_dir():
                out.folder(entry.filename)
                continue
            name = out.member(entry.filename)
            if name is None:
                continue
            if entry.flag_bits & 0x1:
                raise InvalidDataset(f"the archive: {name!r} is encrypted")
            if entry.compress_type not in _PLAIN_METHODS:
                raise InvalidDataset(
                    f"the archive: {name!r} is compressed by method {entry.compress_type}: expected none or deflate"
                )
            with found.open(entry) as content:
                out.write(name, content.read, counted=False)


def _check_directory(file: IO[bytes], size: int, out: _Out) -> None:
    """A directory with too many entries is refused before a million objects are made of it."""
    tail = min(size, (1 << 16) + 22)
    file.seek(size - tail)
    content = file.read(tail)
    file.seek(0)
    at = content.rfind(b"PK\x05\x06")
    if at < 0 or len(content) - at < 22:
        raise InvalidDataset("the archive is cut off, or no zip: it has no directory")
    directory = int.from_bytes(content[at + 12 : at + 16], "little")
    if directory == 0xFFFFFFFF:  # the real size stands in the record of 64 bits before it
        wide = content.rfind(b"PK\x06\x06", 0, at)
        directory = int.from_bytes(content[wide + 40 : wide + 48], "little") if wide >= 0 else size
    # Half of the names may be of any length; zipfile itself stops at the end of the directory.
    if directory > size or directory > out.max_files * (_ZIP_ENTRY_BYTES + 200):
        raise PayloadTooLarge(
            f"the archive has a directory of {directory} bytes: it holds more than {out.max_files} files"
        )


def _told(file: IO[bytes], size: int, progress: Progress | None) -> Callable[[], None]:
    return (lambda: None) if progress is None else (lambda: progress(file.tell(), size))


@contextmanager
def _readable() -> Iterator[None]:
    """What the libraries raise for damaged archives, as one error."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise InvalidDataset(f"the archive is damaged, cut off, or no zip, tar or tar.gz: {error}") from error
    except (NotImplementedError, ValueError, OverflowError, RuntimeError, struct.error) as error:
        raise InvalidDataset(f"the archive cannot be read: {error}") from error
