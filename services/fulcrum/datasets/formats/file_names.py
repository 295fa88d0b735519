"""Labels in file names, as typographic sets publish them: `label=dog_text=cat.png`."""

import re
from pathlib import Path, PurePosixPath

from fulcrum.datasets.formats.paths import require_files, walk_images
from fulcrum.datasets.formats.rows import sample_from_row
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidDataset

_KEY = r"(?:(?:group|covariate)_[A-Za-z0-9]+|pair_id|[A-Za-z][A-Za-z0-9]*)"
_PART = re.compile(rf"(?:^|_)({_KEY})=")


def is_labelled_by_name(path: Path) -> bool:
    """A folder in which every image is named `key=value_key=value...`."""
    if not path.is_dir():
        return False
    found = False
    for source in walk_images(path):
        if not _PART.match(PurePosixPath(source).name):
            return False
        found = True
    return found


def load_file_names(path: Path, name: str) -> Dataset:
    """`label`, `split`, `pair_id`, `group_*` and `covariate_*` mean what they say; the rest is `metadata`.

    A value may hold `_` (`label=fire_truck_text=cat.png`). The id is the relative path.

    Raises InvalidDataset for a name of another shape.
    """
    samples = []
    sources = list(walk_images(path))
    require_files(path, sources)
    for source in sources:
        stem = PurePosixPath(source).name.removesuffix(PurePosixPath(source).suffix)
        parts = list(_PART.finditer(stem))
        if not parts or parts[0].start() != 0:
            raise InvalidDataset(f"{source!r} is not named like 'label=dog_text=cat.png'")
        row: dict[str, str] = {}
        for part, end in zip(parts, [*(p.start() for p in parts[1:]), len(stem)], strict=True):
            key = part[1]
            if key in row or key in ("id", "source"):
                raise InvalidDataset(
                    f"{source!r} has the key {key!r} twice, or one that may not stand in a name"
                )
            row[key] = stem[part.end() : end]
        samples.append(sample_from_row({**row, "id": source, "source": source}, source))
    return Dataset.create(name, path, samples)
