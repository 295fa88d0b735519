"""Where an import finds its images on this machine: a folder, an unpacked archive, what a bucket held."""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from fulcrum.datasets.archives import (
    DEFAULT_ARCHIVE_LIMITS,
    KEPT_SUFFIXES,
    content_root,
    is_webdataset_shard,
    unpack,
)
from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.formats.paths import SPLIT_NAMES, relative_source
from fulcrum.datasets.formats.registry import detect_format
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidDataset, PayloadTooLarge, UnknownDataset
from fulcrum.domain.jobs import ARTIFACT, ImportDataset
from fulcrum.store.buckets import BUCKET, Bucket, BucketObject
from fulcrum.worker.work import Work

_HELD = 2
_FETCHES = 8  # objects on their way at once


@dataclass(frozen=True)
class Source:
    """The images of a source. `sha256` names all that determines what is in them, so that parts can be kept."""

    dataset: Dataset
    format: str
    root: Path
    sha256: str

    def empty_splits(self) -> list[str]:
        """Split folders without an image."""
        if self.format != "image_folder" or not self.dataset.split_names:
            return []
        there = {p.name for p in self.root.iterdir() if p.is_dir() and p.name in SPLIT_NAMES}
        return sorted(there - set(self.dataset.split_names))


class Sources:
    """Opens sources, and holds the last ones of its process: each part of an import asks for the same one."""

    def __init__(self) -> None:
        self._held: dict[str, Source] = {}

    def open(self, work: Work, spec: ImportDataset, name: str) -> Source:
        """Raises UnknownDataset, UnknownArtifact, InvalidDataset, MissingFiles, PayloadTooLarge."""
        found = self._held.pop(work.job.id, None)
        if found is None:
            found = _open(work, spec, name)
        self._held[work.job.id] = found
        while len(self._held) > _HELD:
            del self._held[next(iter(self._held))]
        return found


def _open(work: Work, spec: ImportDataset, name: str) -> Source:
    if spec.source.startswith(ARTIFACT):
        place = _unpacked(work, spec)
        # Of an archive all is known by its hash; files unpacked on two machines differ in their times.
        identity, stamped = spec.source, False
    elif spec.source.startswith(BUCKET):
        place, identity = _fetched(work, spec)
        stamped = False
    else:
        place = work.place(spec.source)
        # Not beyond this job: in a folder a file may change and keep size and time.
        identity, stamped = f"{work.job.id} {spec.source}", True
    format = spec.format or detect_format(place)
    dataset = load_dataset(place, format=format, name=name)
    return Source(dataset, format, dataset.root, _listing(dataset, identity, stamped))


def _listing(dataset: Dataset, identity: str, stamped: bool) -> str:
    content = sha256(identity.encode())
    for sample in dataset.samples:
        stamp = dataset.hashes.byte_source.stamp(sample.source) if stamped else None
        row = [dataclasses.asdict(sample), stamp]
        content.update(json.dumps(row, sort_keys=True, ensure_ascii=True).encode())
    return content.hexdigest()


def _unpacked(work: Work, spec: ImportDataset) -> Path:
    """The content of an archive, in the scratch of the job, whose end removes it."""
    target = work.folder / "archive"
    if not target.is_dir():
        archive = work.artifacts.local_path(spec.source.removeprefix(ARTIFACT))
        partial = Path(tempfile.mkdtemp(prefix="unpacking-", dir=work.folder))
        try:
            if spec.format == "webdataset" or (spec.format is None and is_webdataset_shard(archive)):
                _link(archive, partial / "images.tar")
            else:
                n = unpack(
                    archive,
                    partial,
                    progress=lambda done, size: work.progress("unpacking", done, size, "bytes"),
                )
                work.log(f"unpacked {n} files")
            os.replace(partial, target)
        except OSError:
            # Another process of this machine was faster: a folder with files in it is not replaced.
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    root = content_root(target, SPLIT_NAMES)
    if not any(root.iterdir()):
        raise InvalidDataset("the archive is empty")
    return root


def _fetched(work: Work, spec: ImportDataset) -> tuple[Path, str]:
    """What lies below a prefix, in the scratch of the job, and a hash of the names and marks that it had."""
    target, marks = work.folder / "bucket", work.folder / "bucket.json"
    if not target.is_dir():
        bucket, prefix = work.bucket(spec.source)
        found = _wanted(work, bucket.objects(prefix), spec.source)
        listed = json.dumps([dataclasses.astuple(o) for o in found])
        partial = Path(tempfile.mkdtemp(prefix="fetching-", dir=work.folder))
        try:
            _fetch(work, bucket, prefix, found, partial)
            # Before the folder is there: whoever sees it finds what it is of.
            marks.with_suffix(".new").write_text(listed)
            os.replace(marks.with_suffix(".new"), marks)
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target, sha256(marks.read_bytes()).hexdigest()


def _wanted(work: Work, objects: Iterable[BucketObject], reference: str) -> list[BucketObject]:
    """Those that some format reads. Raises UnknownDataset, InvalidDataset, PayloadTooLarge."""
    limits, size_bytes = DEFAULT_ARCHIVE_LIMITS, 0
    found: list[BucketObject] = []
    for n, one in enumerate(objects):
        if n % 1000 == 0:
            work.progress("listing the bucket", n, n, "objects")
        path = PurePosixPath(one.name)
        hidden = any(p.startswith(".") and p != ".." for p in path.parts)
        if hidden or path.suffix.lower() not in KEPT_SUFFIXES:
            continue
        if relative_source(one.name, reference) != one.name or not one.name.isprintable():
            raise InvalidDataset(f"{reference}: the name {one.name!r} is no plain one")
        size_bytes += one.size_bytes
        if len(found) >= limits.max_files or size_bytes > limits.max_bytes:
            raise PayloadTooLarge(
                f"{reference} holds more than {limits.max_files} files or {limits.max_bytes} bytes"
            )
        found.append(one)
    if not found:
        raise UnknownDataset(f"{reference}: no image or manifest has a name that begins so")
    return found


def _fetch(work: Work, bucket: Bucket, prefix: str, objects: Sequence[BucketObject], folder: Path) -> None:
    def fetch(one: BucketObject) -> None:
        target = folder / one.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidDataset(f"{one.name!r} is an object and a folder") from None
        bucket.fetch(prefix, one, target)

    with ThreadPoolExecutor(_FETCHES) as pool:
        waiting = [pool.submit(fetch, one) for one in objects]
        try:
            for done, future in enumerate(waiting):
                work.progress("fetching", done, len(waiting), "files")
                future.result()
        finally:
            for future in waiting:
                future.cancel()


def _link(archive: Path, target: Path) -> None:
    try:
        os.link(archive, target)
    except OSError:  # on another file system
        shutil.copyfile(archive, target)
