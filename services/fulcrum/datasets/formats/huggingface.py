"""Data sets of Hugging Face's `datasets` library on disk, read through pyarrow: no hub, no remote code."""

import json
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa

from fulcrum.datasets.formats.paths import SPLIT_NAMES, is_image, relative_source, require_files
from fulcrum.datasets.formats.rows import sample_from_row
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import InvalidDataset, MissingFiles

_CACHE_SPLIT = re.compile(rf"(?:^|[-_])({'|'.join(sorted(SPLIT_NAMES))})(?:-\d+-of-\d+)?$")
_DECODED: Final = ("Image", "Audio", "Video")  # features whose payload is no column of ours


@dataclass(frozen=True)
class ArrowSource:
    """Images in memory-mapped Arrow files; `source` is `file.arrow::row`, or a path if that is stored."""

    root: Path
    image_column: str
    _open: dict[str, "_Rows"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, source: str) -> bytes:
        """Bytes of one row's image."""
        file, _, row = source.rpartition("::")
        if not file:
            try:
                return (self.root / source).read_bytes()
            except OSError as error:
                raise MissingFiles(f"{source!r} is no longer in {self.root.name!r}") from error
        content = self._struct(file, int(row)).get("bytes")
        assert isinstance(content, pa.Scalar)
        buffer = content.as_buffer()
        return buffer.to_pybytes() if buffer is not None else b""

    def stamp(self, source: str) -> tuple[int, int]:
        """Size of the image and mtime of the Arrow file."""
        file, _, row = source.rpartition("::")
        try:
            stat = os.stat(self.root / (file or source))
        except OSError as error:
            raise MissingFiles(f"{file or source!r} is no longer in {self.root.name!r}") from error
        if not file:
            return stat.st_size, stat.st_mtime_ns
        return self._struct(file, int(row))["bytes"].as_buffer().size, stat.st_mtime_ns

    def _struct(self, file: str, row: int) -> Any:
        with self._lock:
            if file not in self._open:
                self._open[file] = _Rows.open(self.root / file)
        return self._open[file].value(self.image_column, row)


@dataclass(frozen=True)
class _Rows:
    """The record batches of one Arrow file, zero-copy over its memory map."""

    batches: list[Any]
    starts: list[int]

    @classmethod
    def open(cls, path: Path) -> "_Rows":
        try:
            size = path.stat().st_size
            with pa.memory_map(str(path)) as file:
                batches, n_bytes = [], 0
                for batch in _batches(file):
                    n_bytes += batch.nbytes
                    # Only compression can make batches larger than the file that they lie in.
                    if n_bytes > size:
                        raise InvalidDataset(f"{path.name!r} is compressed Arrow, which is not read")
                    batch.validate(full=True)  # offsets of a damaged file would point anywhere
                    batches.append(batch)
        except FileNotFoundError as error:
            raise MissingFiles(f"{path.name!r}, named by the data set's state, does not exist") from error
        except (pa.ArrowException, OSError) as error:
            raise InvalidDataset(f"{path.name!r} is no readable Arrow file: {error}") from error
        starts = [0]
        for batch in batches:
            starts.append(starts[-1] + batch.num_rows)
        return cls(batches, starts)

    def value(self, column: str, row: int) -> Any:
        batch = bisect_right(self.starts, row) - 1
        return self.batches[batch].column(column)[row - self.starts[batch]]


def is_huggingface(path: Path) -> bool:
    """A folder written by `save_to_disk`, or one with Arrow files and their `dataset_info.json`."""
    if not path.is_dir():
        return False
    if (path / "dataset_dict.json").is_file():
        return True
    return (path / "dataset_info.json").is_file() and next(path.glob("*.arrow"), None) is not None


def load_huggingface(path: Path, name: str) -> Dataset:
    """Rows with an Image feature; the label is the ClassLabel feature (or a column `label`).

    Columns with the names of a manifest have their meaning, other scalar columns become metadata. Without a
    column `id` it is `split/row`. Raises InvalidDataset and MissingFiles.
    """
    parts = _parts(path)
    samples: list[Sample] = []
    class_names: list[str] | None = None
    image_column = ""
    for folder, split in parts:
        features = _features(folder)
        image, label = _image_column(features, folder), _label_column(features)
        if image_column not in ("", image):
            raise InvalidDataset(
                f"the splits of {path.name!r} name their image {image_column!r} and {image!r}"
            )
        image_column = image
        names = features[label].get("names") if label is not None else None
        if class_names not in (None, names):
            raise InvalidDataset(f"the splits of {path.name!r} have different class names")
        class_names = names
        row_number: dict[str | None, int] = {}
        for file, own_split in _files(folder, split):
            relative = (folder / file).relative_to(path).as_posix()
            for i, row in enumerate(_rows(folder / file, image)):
                where = f"{relative} row {i}"
                number = row_number.get(own_split, 0)
                row_number[own_split] = number + 1
                row.setdefault("id", f"{own_split}/{number:09d}" if own_split else f"{number:09d}")
                row.setdefault("split", own_split)
                if label is not None:
                    row["label"] = _label(row.get(label), names, where)
                    if label != "label":
                        row.pop(label)
                stored, at = row.pop(image)
                row["source"] = f"{relative}::{i}" if stored else _path_source(at, where)
                samples.append(sample_from_row(row, where, relative=False))
    require_files(path, (s.source for s in samples if "::" not in s.source))
    return Dataset.create(
        name, path, samples, byte_source=ArrowSource(path, image_column), class_names=class_names
    )


def _batches(file: Any) -> Iterator[Any]:
    try:
        reader: Any = pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
        random_access = pa.ipc.open_file(file)
        for i in range(random_access.num_record_batches):
            yield random_access.get_batch(i)
        return
    yield from reader


def _parts(path: Path) -> list[tuple[Path, str | None]]:
    """(folder, split) of each part."""
    if not (path / "dataset_dict.json").is_file():
        return [(path, None)]
    splits = _json(path / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not splits or not all(_is_plain(s) for s in splits):
        raise InvalidDataset(f"'dataset_dict.json' must list its splits by plain names, got {splits!r}")
    for split in splits:
        if not (path / split).is_dir():
            raise MissingFiles(f"the folder of split {split!r} does not exist in {path.name!r}")
    return [(path / split, split) for split in splits]


def _files(folder: Path, split: str | None) -> list[tuple[str, str | None]]:
    """(file, split) of a part, in the order of its rows."""
    if not (folder / "state.json").is_file():
        names = sorted(p.name for p in folder.glob("*.arrow"))
        if not names:
            raise InvalidDataset(f"{folder.name!r} holds no Arrow file")
        found = [_CACHE_SPLIT.search(n.removesuffix(".arrow")) for n in names]
        return [(n, split or (m[1] if m else None)) for n, m in zip(names, found, strict=True)]
    state = _json(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise InvalidDataset(f"{folder.name!r} has a selection of rows that was not flattened; save it again")
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and _is_plain(f.get("filename")) for f in files
    ):
        raise InvalidDataset(f"'state.json' of {folder.name!r} must list its data files by plain names")
    own = split or (state.get("_split") if isinstance(state.get("_split"), str) else None)
    return [(f["filename"], own) for f in files]


def _features(folder: Path) -> dict[str, dict[str, Any]]:
    features = _json(folder / "dataset_info.json").get("features")
    if not isinstance(features, dict):
        raise InvalidDataset(f"'dataset_info.json' of {folder.name!r} lists no features")
    # Sequences and nested features are lists and dictionaries without a `_type` that means anything here.
    return {c: f if isinstance(f, dict) else {} for c, f in features.items()}


def _image_column(features: dict[str, dict[str, Any]], folder: Path) -> str:
    images = [c for c, f in features.items() if f.get("_type") == "Image"]
    if not images:
        raise InvalidDataset(f"{folder.name!r} has no Image feature: it has {sorted(features)[:20]}")
    return next((c for c in ("image", "img") if c in images), images[0])


def _label_column(features: dict[str, dict[str, Any]]) -> str | None:
    labels = [c for c, f in features.items() if f.get("_type") == "ClassLabel"]
    return "label" if "label" in labels or (not labels and "label" in features) else next(iter(labels), None)


def _label(value: Any, names: list[str] | None, where: str) -> str | None:
    if value is None:
        return None
    if names is None:
        return str(value)
    if not isinstance(value, int) or value < -1 or value >= len(names):
        raise InvalidDataset(f"{where}: class {value!r} of {len(names)} named classes")
    return None if value == -1 else names[value]  # -1 is how hidden test labels are written


def _rows(path: Path, image: str) -> Iterator[dict[str, Any]]:
    """Scalar columns; under `image` a pair (whether bytes are stored, path)."""
    for batch in _Rows.open(path).batches:
        column = batch.schema.get_field_index(image)
        if column < 0 or not pa.types.is_struct(batch.schema.types[column]):
            raise InvalidDataset(f"{path.name!r}: column {image!r} must be a struct of bytes and path")
        struct = batch.column(column)
        inside = {f.name for f in struct.type}
        if "bytes" not in inside:
            raise InvalidDataset(
                f"{path.name!r}: column {image!r} holds {sorted(inside)}, expected bytes and path"
            )
        stored = struct.field("bytes").is_valid().to_pylist()
        paths = struct.field("path").to_pylist() if "path" in inside else [None] * batch.num_rows
        scalars = [n for n, t in zip(batch.schema.names, batch.schema.types, strict=True) if _is_scalar(t)]
        for row, *place in zip(batch.select(scalars).to_pylist(), stored, paths, strict=True):
            yield {**row, image: tuple(place)}


def _is_scalar(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind)
        or types.is_integer(kind) or types.is_floating(kind)
    )  # fmt: skip


def _path_source(path: Any, where: str) -> str:
    if not isinstance(path, str) or not path:
        raise InvalidDataset(f"{where}: the image has neither bytes nor a path")
    source = relative_source(path, where)
    if not is_image(PurePosixPath(source).name) or "::" in source:
        raise InvalidDataset(f"{where}: {path!r} is not the path of an image that we read")
    return source


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFiles(f"{file.name!r} does not exist in {file.parent.name!r}") from error
    except ValueError as error:
        raise InvalidDataset(f"{file.name!r} in {file.parent.name!r} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidDataset(f"{file.name!r} in {file.parent.name!r} must hold an object")
    return content


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\x00]", name)
