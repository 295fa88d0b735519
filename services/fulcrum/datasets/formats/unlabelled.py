"""A folder of images and nothing else."""

from pathlib import Path

from fulcrum.datasets.formats.paths import is_image, require_files, walk_images
from fulcrum.datasets.samples import Dataset, Sample


def is_unlabelled(path: Path) -> bool:
    """A folder that holds an image directly."""
    return path.is_dir() and any(is_image(p.name) for p in path.iterdir())


def load_unlabelled(path: Path, name: str) -> Dataset:
    """Every image below the folder, without label; the id is the relative path."""
    sources = list(walk_images(path))
    require_files(path, sources)
    return Dataset.create(name, path, (Sample(id=s, source=s) for s in sources))
