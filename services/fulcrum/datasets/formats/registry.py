"""The formats that are read, in the order in which they are recognised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fulcrum.datasets.formats.coco import is_coco, load_coco
from fulcrum.datasets.formats.fiftyone import is_fiftyone, load_fiftyone
from fulcrum.datasets.formats.file_names import is_labelled_by_name, load_file_names
from fulcrum.datasets.formats.huggingface import is_huggingface, load_huggingface
from fulcrum.datasets.formats.image_folder import is_image_folder, load_image_folder
from fulcrum.datasets.formats.manifest import is_manifest, load_manifest
from fulcrum.datasets.formats.unlabelled import is_unlabelled, load_unlabelled
from fulcrum.datasets.formats.webdataset import is_webdataset, load_webdataset
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidDataset, UnknownDataset


@dataclass(frozen=True)
class Format:
    """How a layout on disk is recognised and read."""

    recognises: Callable[[Path], bool]
    load: Callable[[Path, str], Dataset]  # (path, name of the data set)


# The most specific first: a folder of class folders may hold a manifest that knows more.
FORMATS: dict[str, Format] = {
    "manifest": Format(is_manifest, load_manifest),
    "huggingface": Format(is_huggingface, load_huggingface),
    "webdataset": Format(is_webdataset, load_webdataset),
    "coco": Format(is_coco, load_coco),
    "fiftyone": Format(is_fiftyone, load_fiftyone),
    "file_names": Format(is_labelled_by_name, load_file_names),
    "image_folder": Format(is_image_folder, load_image_folder),
    "unlabelled": Format(is_unlabelled, load_unlabelled),
}


def load_dataset(path: str | Path, *, format: str | None = None, name: str | None = None) -> Dataset:
    """The data set at `path`, a folder or a file; no image is decoded and only the digest will read them all.

    `format` None: the first of FORMATS that recognises the path. `name` None: the folder's (or file's) name.
    Raises UnknownDataset when nothing is there, InvalidDataset when it is in no known format or its
    content is wrong, MissingFiles when it names images or masks that do not exist.
    """
    place = Path(path)
    if not place.exists():
        raise UnknownDataset(f"no data set at {str(path)!r}: the path does not exist")
    # Resolved once, so that a later change of the working directory cannot change what is read.
    place = place.resolve()
    if format is not None and format not in FORMATS:
        raise InvalidDataset(f"unknown format {format!r}: expected one of {', '.join(FORMATS)}")
    chosen = format or detect_format(place)
    return FORMATS[chosen].load(place, name or (place.stem if place.is_file() else place.name))


def detect_format(path: Path) -> str:
    """Key in FORMATS. Raises InvalidDataset when none recognises the path."""
    for key, candidate in FORMATS.items():
        if candidate.recognises(path):
            return key
    raise InvalidDataset(
        f"{path.name!r} holds no data set that we read: expected one of {', '.join(FORMATS)} (a folder "
        "of images needs .png, .jpg, .jpeg or .webp files)"
    )
