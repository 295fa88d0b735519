"""FiftyOne's own exports: `data/` and a `labels.json` with `classes` and `labels`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fulcrum.datasets.formats.crops import CropSource, crop_source
from fulcrum.datasets.formats.paths import require_files, walk_images
from fulcrum.datasets.hygiene.splitting import PARENT_IMAGE
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import InvalidDataset, MissingFiles


def is_fiftyone(path: Path) -> bool:
    """A folder with `data/` beside a `labels.json` that maps images to labels or boxes."""
    if not path.is_dir() or not (path / "data").is_dir() or not (path / "labels.json").is_file():
        return False
    try:
        return isinstance(_content(path).get("labels"), dict)
    except InvalidDataset:
        return False


def load_fiftyone(path: Path, name: str) -> Dataset:
    """Classification: one sample for each image. Detection: a crop for each box, covariate `box_share`.

    Labels are numbers into `classes`, or names where `classes` is null. Images are found by path without
    suffix. Raises InvalidDataset, MissingFiles.
    """
    content = _content(path)
    classes, labels = content.get("classes"), content["labels"]
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise InvalidDataset("'classes' of 'labels.json' must be a list of names or null")
    files = {}
    for source in walk_images(path / "data"):
        files[source.rpartition(".")[0]] = f"data/{source}"
        files[source] = f"data/{source}"
    missing = sorted(k for k in labels if k not in files)
    if missing:
        raise MissingFiles(
            f"{len(missing)} of {len(labels)} labelled images do not exist, first: {missing[:5]}"
        )
    require_files(path, sorted(set(files.values())))
    samples = [s for key, value in labels.items() for s in _samples(files[key], value, classes)]
    return Dataset.create(name, path, samples, byte_source=CropSource(path), class_names=classes)


def _samples(source: str, value: Any, classes: list[str] | None) -> Iterator[Sample]:
    if value is None:
        yield Sample(id=source, source=source)
    elif not isinstance(value, list):
        target = value["label"] if isinstance(value, dict) and "label" in value else value
        yield Sample(id=source, source=source, label=_name(target, classes, source))
    else:
        for n, detection in enumerate(value):
            where = f"{source} detection {n}"
            try:
                left, top, width, height = (float(v) for v in detection["bounding_box"])
                target = detection["label"]
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidDataset(f"{where}: needs label and bounding_box: {error!r}") from error
            yield Sample(
                id=f"{source}#{n}",
                source=crop_source(source, (left, top, width, height), "share", where),
                label=_name(target, classes, where),
                covariates={"box_share": width * height},
                metadata={PARENT_IMAGE: source},
            )


def _name(target: Any, classes: list[str] | None, where: str) -> str:
    if classes is None or isinstance(target, str):
        return str(target)
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(classes):
        raise InvalidDataset(f"{where}: label {target!r} of {len(classes)} classes")
    return classes[target]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / "labels.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidDataset(f"'labels.json' in {path.name!r} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidDataset(f"'labels.json' in {path.name!r} must hold an object")
    return content
