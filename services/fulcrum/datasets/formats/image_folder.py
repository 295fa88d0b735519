"""ImageFolder: a folder for each class, optionally below split folders and with `metadata.csv|jsonl`."""

from pathlib import Path, PurePosixPath
from typing import Any

from fulcrum.datasets.formats.manifest import read_rows
from fulcrum.datasets.formats.paths import (
    SPLIT_NAMES,
    is_image,
    relative_source,
    require_files,
    walk_images,
)
from fulcrum.datasets.formats.rows import sample_from_row
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import InvalidDataset

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def is_image_folder(path: Path) -> bool:
    """A folder with metadata beside its images, or with sub-folders that hold images."""
    if not path.is_dir():
        return False
    if any((path / name).is_file() for name in METADATA_NAMES):
        return True
    return any(_holds_image(folder) for folder in path.iterdir() if folder.is_dir() and folder.name[0] != ".")


def load_image_folder(path: Path, name: str) -> Dataset:
    """The id is the relative path; the label is the first folder (below the split, if any).

    Folders count as splits when every folder with images is named like one (`train val valid validation test
    discover select confirm`). Rows of the metadata, found by `file_name` (or `source`), override and
    add columns.
    Raises InvalidDataset and MissingFiles.
    """
    sources = list(walk_images(path))
    tops = {PurePosixPath(s).parts[0] for s in sources if "/" in s}
    has_splits = bool(tops) and tops <= SPLIT_NAMES
    rows: dict[str, dict[str, Any]] = {}
    for folder in [path, *(path / top for top in sorted(tops) if has_splits)]:
        rows |= _metadata(folder, "" if folder == path else f"{folder.name}/")
    require_files(path, [*sources, *rows])
    samples = []
    for source in sorted({*sources, *rows}):
        sample = _from_folders(source, has_splits)
        if source in rows:
            sample = _merged(sample, rows[source])
        samples.append(sample)
    require_files(path, (s.mask_path for s in samples if s.mask_path is not None), "masks")
    # A mask named by the metadata lies below the same folder and is no image of the data set.
    masks = {s.mask_path for s in samples}
    return Dataset.create(name, path, (s for s in samples if s.source not in masks))


def _from_folders(source: str, has_splits: bool) -> Sample:
    folders = list(PurePosixPath(source).parts[:-1])
    split = folders.pop(0) if has_splits and folders else None
    return Sample(id=source, source=source, label=folders[0] if folders else None, split=split)


def _merged(sample: Sample, row: dict[str, Any]) -> Sample:
    absent = {"id": sample.id, "label": sample.label, "split": sample.split}
    given = {column: value for column, value in row.items() if value not in (None, "")}
    return sample_from_row({**absent, **given, "source": sample.source}, f"metadata of {sample.source!r}")


def _metadata(folder: Path, prefix: str) -> dict[str, dict[str, Any]]:
    files = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len(files) > 1:
        raise InvalidDataset(f"{folder.name!r} has both {' and '.join(METADATA_NAMES)}: keep one")
    rows: dict[str, dict[str, Any]] = {}
    for where, row in read_rows(files[0]) if files else ():
        column = "file_name" if "file_name" in row else "source"
        text = row.pop(column, None)
        if not isinstance(text, str) or not text.strip():
            raise InvalidDataset(f"{where}: needs the image's path in a column 'file_name'")
        source = prefix + relative_source(text, where)
        if source in rows:
            raise InvalidDataset(f"{where}: {text!r} has a row already")
        # Paths of masks are relative to the metadata file too.
        if prefix and row.get("mask_path"):
            row["mask_path"] = prefix + relative_source(str(row["mask_path"]), where)
        rows[source] = row
    return rows


def _holds_image(folder: Path) -> bool:
    return any(is_image(file.name) for file in folder.rglob("*"))
