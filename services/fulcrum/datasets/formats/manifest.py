"""CSV, JSONL and Parquet manifests: one row for each image, sources relative to the manifest's folder."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fulcrum.datasets.formats.paths import require_files
from fulcrum.datasets.formats.rows import sample_from_row
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidDataset

MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl", "manifest.parquet")
SUFFIXES = (".csv", ".jsonl", ".parquet")
Rows = Iterator[tuple[str, dict[str, Any]]]  # ("manifest.csv line 7", columns)


def is_manifest(path: Path) -> bool:
    """A `.csv`, `.jsonl` or `.parquet` file, or a folder with a `manifest.` of that kind."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return any((path / name).is_file() for name in MANIFEST_NAMES)


def load_manifest(path: Path, name: str) -> Dataset:
    """Raises InvalidDataset (columns, encoding, paths, repeated ids) and MissingFiles."""
    file = manifest_file(path)
    samples = [sample_from_row(row, where) for where, row in read_rows(file, required=("id", "source"))]
    require_files(file.parent, (s.source for s in samples))
    require_files(file.parent, (s.mask_path for s in samples if s.mask_path is not None), "masks")
    return Dataset.create(name, file.parent, samples)


def manifest_file(path: Path) -> Path:
    """The manifest itself. Raises InvalidDataset when a folder has several: none is preferred."""
    if path.is_file():
        return path
    there = [path / name for name in MANIFEST_NAMES if (path / name).is_file()]
    if len(there) != 1:
        names = [p.name for p in there]
        raise InvalidDataset(
            f"{path.name!r} must hold one manifest ({', '.join(MANIFEST_NAMES)}), found {names}"
        )
    return there[0]


def read_rows(file: Path, required: tuple[str, ...] = ()) -> Rows:
    """Rows as column dictionaries with the place they stand at. Raises InvalidDataset."""
    match file.suffix.lower():
        case ".csv":
            return _csv_rows(file, required)
        case ".jsonl":
            return _jsonl_rows(file, required)
        case ".parquet":
            return _parquet_rows(file, required)
        case other:
            raise InvalidDataset(f"{file.name!r} ends in {other!r}: expected one of {', '.join(SUFFIXES)}")


def _decoded(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise InvalidDataset(
            f"{file.name!r} is not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}): save it so"
        ) from error


def _csv_rows(file: Path, required: tuple[str, ...]) -> Rows:
    # newline handling is the reader's: a quoted cell may hold line breaks.
    reader = csv.reader(io.StringIO(_decoded(file), newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_columns(file, header, required)
        for cells in reader:
            if not cells:
                continue
            where = f"{file.name} line {reader.line_num}"
            if len(cells) != len(header):
                raise InvalidDataset(f"{where}: {len(cells)} cells under {len(header)} columns")
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InvalidDataset(f"{file.name} line {reader.line_num}: {error}") from error


def _jsonl_rows(file: Path, required: tuple[str, ...]) -> Rows:
    for number, line in enumerate(_decoded(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file.name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidDataset(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidDataset(f"{where}: expected an object, got {type(row).__name__}")
        missing = [column for column in required if column not in row]
        if missing:
            raise InvalidDataset(f"{where}: {missing} missing; it has {sorted(row)[:20]}")
        yield where, row


def _parquet_rows(file: Path, required: tuple[str, ...]) -> Rows:
    try:
        with pq.ParquetFile(file) as parquet:
            _check_columns(file, parquet.schema_arrow.names, required)
            number = 0
            for batch in parquet.iter_batches():
                for row in batch.to_pylist():
                    yield f"{file.name} row {number}", row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise InvalidDataset(f"{file.name!r} is no readable Parquet file: {error}") from error


def _check_columns(file: Path, columns: list[str], required: tuple[str, ...]) -> None:
    missing = [c for c in required if c not in columns]
    if missing:
        raise InvalidDataset(f"{file.name!r} lacks the columns {missing}; it has {columns[:20]}")
    doubles = sorted({c for c in columns if columns.count(c) > 1})
    if doubles:
        raise InvalidDataset(f"{file.name!r} has columns more than once: {doubles}")
