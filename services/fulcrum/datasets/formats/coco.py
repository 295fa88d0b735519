"""COCO detection as FiftyOne, Roboflow and COCO itself lay it out: each box becomes a labelled crop."""

import json
from pathlib import Path
from typing import Any, Final

from fulcrum.datasets.formats.crops import CropSource, crop_source
from fulcrum.datasets.formats.paths import SPLIT_NAMES, relative_source, require_files
from fulcrum.datasets.hygiene.splitting import PARENT_IMAGE
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import InvalidDataset

_FILES: Final = ("labels.json", "_annotations.coco.json")


def is_coco(path: Path) -> bool:
    """A folder with `labels.json`, `_annotations.coco.json` or `annotations/*.json` in the form of COCO."""
    return path.is_dir() and bool(_annotation_files(path))


def load_coco(path: Path, name: str) -> Dataset:
    """One sample for each box with an area that is no crowd; covariate `box_share` is its part of the image.

    The split is the one in the annotation file's name (`instances_val2017.json`) or folder (Roboflow's
    `train/`). Crops of one image share `metadata["parent_image"]`, which splitting respects. Raises
    InvalidDataset, MissingFiles.
    """
    files = _annotation_files(path)
    samples: list[Sample] = []
    class_names: list[str] = []
    for file in files:
        content = _read(file)
        where = file.relative_to(path).as_posix()
        split = _split(file, path)
        folder = _image_folder(path, file, split, content, where)
        names = _by_id(content, "categories", "name", where)
        class_names += [n for n in names.values() if n not in class_names]
        images = _by_id(content, "images", "file_name", where)
        sizes = {i["id"]: (i.get("width"), i.get("height")) for i in content["images"]}
        for n, annotation in enumerate(content["annotations"]):
            place = f"{where} annotation {n}"
            try:
                number, image, label = (
                    annotation["id"],
                    images[annotation["image_id"]],
                    names[annotation["category_id"]],
                )
                x, y, width, height = (float(v) for v in annotation["bbox"])
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidDataset(
                    f"{place}: needs id, image_id, category_id and bbox: {error!r}"
                ) from error
            if annotation.get("iscrowd") or width == 0 or height == 0:
                continue
            parent = folder + relative_source(image, place)
            image_width, image_height = sizes[annotation["image_id"]]
            covariates = (
                {"box_share": width * height / (image_width * image_height)}
                if image_width and image_height
                else {}
            )
            samples.append(
                Sample(
                    id=f"{parent}#{number}",
                    source=crop_source(parent, (x, y, width, height), "px", place),
                    label=label,
                    split=split,
                    covariates=covariates,
                    metadata={PARENT_IMAGE: parent},
                )
            )
    require_files(path, sorted({s.metadata[PARENT_IMAGE] for s in samples}))
    return Dataset.create(name, path, samples, byte_source=CropSource(path), class_names=class_names)


def _annotation_files(path: Path) -> list[Path]:
    folders = [path, *(path / split for split in sorted(SPLIT_NAMES))]
    files = [f / n for f in folders for n in _FILES] + sorted((path / "annotations").glob("*.json"))
    return [f for f in files if f.is_file() and _looks_like_coco(f)]


def _looks_like_coco(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # Captions and key points live in files of the same form, without boxes that have a category.
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        return False
    annotations = content["annotations"]
    return isinstance(annotations, list) and all(isinstance(a, dict) and "bbox" in a for a in annotations[:1])


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list) or not all(isinstance(row, dict) for row in content[key]):
            raise InvalidDataset(f"{file.name!r}: {key!r} must be a list of objects")
    return content


def _by_id(content: dict[str, Any], key: str, column: str, where: str) -> dict[Any, str]:
    try:
        found = {row["id"]: str(row[column]) for row in content[key]}
    except (KeyError, TypeError) as error:
        raise InvalidDataset(f"{where}: every entry of {key!r} needs id and {column}: {error!r}") from error
    if len(found) != len(content[key]):
        raise InvalidDataset(f"{where}: the ids of {key!r} must differ")
    return found


def _split(file: Path, root: Path) -> str | None:
    if file.parent.name in SPLIT_NAMES and file.parent != root:
        return file.parent.name
    parts = file.stem.replace("-", "_").split("_")
    return next((s for p in parts for s in sorted(SPLIT_NAMES) if p.rstrip("0123456789") == s), None)


def _image_folder(root: Path, file: Path, split: str | None, content: dict[str, Any], where: str) -> str:
    """Prefix of image paths, relative to the root: the first usual place that has the first image."""
    if not content["images"]:
        return ""
    first = relative_source(str(content["images"][0].get("file_name", "")), where)
    own = "" if file.parent in (root, root / "annotations") else f"{file.parent.name}/"
    year = file.stem.replace("-", "_").split("_")[-1]
    places = [own, "data/", f"images/{split}/", f"images/{year}/", f"{year}/", f"{split}/", "images/"]
    return next((p for p in places if (root / p / first).is_file()), own)
