"""WebDataset: tar shards in which the files of a sample share a key (`000017.jpg 000017.cls 000017.json`)."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fulcrum.datasets.formats.paths import IMAGE_SUFFIXES, SPLIT_NAMES, relative_source, require_files
from fulcrum.datasets.formats.rows import sample_from_row
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import InvalidDataset, MissingFiles

# Everything but images is read at import: labels and captions, not payloads.
_MAX_TEXT_BYTES: Final = 1 << 20
_MAX_MEMBERS: Final = 20_000_000
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_SPLIT = re.compile(rf"(?:^|[-_.])({'|'.join(sorted(SPLIT_NAMES))})(?=[-_.]|\d|$)")
_CLASS_FILES: Final = ("classnames.txt", "classes.txt")


@dataclass(frozen=True)
class TarSource:
    """Images inside uncompressed tar files, read by offset; `source` is `shard.tar::member`."""

    root: Path
    places: dict[str, tuple[str, int, int]]  # source -> (shard, offset, size)

    def read(self, source: str) -> bytes:
        """Bytes of one member."""
        shard, offset, size = self.places[source]
        try:
            with (self.root / shard).open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise MissingFiles(f"shard {shard!r} cannot be read any more: {error.strerror}") from error
        if len(content) != size:
            raise InvalidDataset(f"shard {shard!r} became shorter: {source!r} is cut off")
        return content

    def stamp(self, source: str) -> tuple[int, int]:
        """Size of the member and mtime of its shard."""
        shard, _, size = self.places[source]
        try:
            return size, os.stat(self.root / shard).st_mtime_ns
        except OSError as error:
            raise MissingFiles(f"shard {shard!r} is no longer there") from error


def is_webdataset(path: Path) -> bool:
    """A tar file, or a folder with tar files in it or in its split folders."""
    if path.is_file():
        return path.suffix.lower() == ".tar"
    return next(path.glob("*.tar"), None) is not None or next(path.glob("*/*.tar"), None) is not None


def load_webdataset(path: Path, name: str) -> Dataset:
    """The id is `shard/key`; `.json` holds columns, `.cls` a label or class number, `.txt` a caption.

    The split is that of the `.json`, else the folder or the part of the shard's name that is called like one.
    Class numbers are named by `classnames.txt` beside the shards. Members with links, devices, absolute or
    climbing names, sparse members and compressed shards raise InvalidDataset.
    """
    root = path.parent if path.is_file() else path
    shards = [path.name] if path.is_file() else sorted(p.relative_to(path).as_posix() for p in _tars(path))
    require_files(root, shards, "shards")
    class_names = _class_names(root)
    places: dict[str, tuple[str, int, int]] = {}
    samples: list[Sample] = []
    for shard in shards:
        for key, members in _samples(root / shard, shard):
            images = [m for m in members if f".{m}" in IMAGE_SUFFIXES]
            if not images:
                continue
            if len(images) > 1:
                raise InvalidDataset(f"{shard}: {key!r} has several images: {sorted(images)}")
            source = f"{shard}::{key}.{images[0]}"
            offset, size, _ = members[images[0]]
            places[source] = (shard, offset, size)
            row = _row(shard, key, members, class_names)
            row.setdefault("id", f"{shard.removesuffix('.tar')}/{key}")
            row.setdefault("split", _split(shard))
            row["source"] = source
            samples.append(sample_from_row(row, f"{shard}: {key}", relative=False))
    labels = {s.label for s in samples if s.label is not None}
    known = class_names if class_names and labels <= set(class_names) else None
    return Dataset.create(name, root, samples, byte_source=TarSource(root, places), class_names=known)


def _tars(path: Path) -> Iterator[Path]:
    yield from path.glob("*.tar")
    yield from path.glob("*/*.tar")


def _samples(path: Path, shard: str) -> Iterator[tuple[str, dict[str, tuple[int, int, bytes | None]]]]:
    """Consecutive members with one key: extension -> (offset, size, content unless it is an image)."""
    key, members = "", dict[str, tuple[int, int, bytes | None]]()
    size = path.stat().st_size
    try:
        # "r:" refuses compression: it allows no access by offset, and it is how a small file becomes a huge
        # one.
        with tarfile.open(path, "r:") as tar:
            for n, member in enumerate(tar):
                # The archive object would remember every member of a shard of any size.
                tar.members = []  # type: ignore[attr-defined]
                if n >= _MAX_MEMBERS:
                    raise InvalidDataset(f"{shard} has more than {_MAX_MEMBERS} members")
                if member.isdir():
                    continue
                where = _checked(member, shard, size)
                match = _KEY.fullmatch(where)
                if match is None or PurePosixPath(where).name.startswith("."):
                    continue
                if match[1] != key:
                    if members:
                        yield key, members
                    key, members = match[1], {}
                extension = match[2].lower()
                if extension in members:
                    raise InvalidDataset(f"{shard}: {where!r} is there twice")
                content = None
                if f".{extension}" not in IMAGE_SUFFIXES and extension in ("cls", "txt", "json"):
                    if member.size > _MAX_TEXT_BYTES:
                        raise InvalidDataset(
                            f"{shard}: {where!r} has {member.size} bytes, the limit is {_MAX_TEXT_BYTES}"
                        )
                    file = tar.extractfile(member)
                    content = b"" if file is None else file.read()
                members[extension] = (member.offset_data, member.size, content)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise InvalidDataset(f"{shard} is no complete, uncompressed tar file: {error}") from error
    if members:
        yield key, members


def _checked(member: tarfile.TarInfo, shard: str, size: int) -> str:
    if not member.isreg() or member.issparse():
        raise InvalidDataset(
            f"{shard}: {member.name!r} is a link, device or sparse file; only plain files are read"
        )
    if member.offset_data + member.size > size:
        raise InvalidDataset(f"{shard} is truncated: {member.name!r} reaches beyond its end")
    return relative_source(member.name, shard)


def _row(
    shard: str, key: str, members: dict[str, tuple[int, int, bytes | None]], class_names: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for extension, (_, _, content) in members.items():
        if content is not None:
            try:
                texts[extension] = content.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise InvalidDataset(f"{shard}: {key}.{extension} is not UTF-8") from error
    if "json" in texts:
        try:
            row = json.loads(texts["json"])
        except ValueError as error:
            raise InvalidDataset(f"{shard}: {key}.json is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidDataset(f"{shard}: {key}.json must hold an object, got {type(row).__name__}")
    if texts.get("cls"):
        row["label"] = _class_name(texts["cls"], class_names, f"{shard}: {key}.cls")
    if "txt" in texts:
        row.setdefault("caption", texts["txt"])
    return row


def _class_name(text: str, class_names: list[str], where: str) -> str:
    if not class_names or not text.isdecimal():
        return text
    if int(text) >= len(class_names):
        raise InvalidDataset(f"{where}: class {text} of {len(class_names)} named classes")
    return class_names[int(text)]


def _class_names(root: Path) -> list[str]:
    for file in (root / name for name in _CLASS_FILES):
        if file.is_file():
            try:
                return [
                    line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
                ]
            except UnicodeDecodeError as error:
                raise InvalidDataset(f"{file.name!r} is not UTF-8") from error
    return []


def _split(shard: str) -> str | None:
    path = PurePosixPath(shard)
    if path.parent.name in SPLIT_NAMES:
        return path.parent.name
    match = _SPLIT.search(path.stem.lower())
    return match[1] if match else None
