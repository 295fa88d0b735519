"""Finding images below a folder, and keeping sources inside it."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fulcrum.domain.errors import InvalidDataset, MissingFiles

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
SPLIT_NAMES = frozenset(
    {"train", "val", "valid", "validation", "test", "discover", "select", "confirm"}
)  # fmt: skip
_SHOWN = 5


def is_image(name: str) -> bool:
    """Whether the name ends like an image that we read; hidden files never count."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def walk_images(root: Path) -> Iterator[str]:
    """Relative paths of all images below `root`, sorted; hidden folders and `__MACOSX` are passed over.

    A link to a folder raises InvalidDataset: it may lead outside or into a circle.
    """
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith(".") and d != "__MACOSX")
        for subfolder in subfolders:
            if os.path.islink(os.path.join(folder, subfolder)):
                raise InvalidDataset(
                    f"{subfolder!r} in {Path(folder).name!r} is a link to a folder: links are not followed"
                )
        for file in sorted(files):
            if is_image(file):
                yield Path(folder, file).relative_to(root).as_posix()


def relative_source(text: str, where: str) -> str:
    """`text` as a clean relative path. Raises InvalidDataset (starting with `where`) otherwise."""
    if "\x00" in text:
        raise InvalidDataset(f"{where}: a path may not hold a NUL byte: {text!r}")
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or (len(text) > 1 and text[1] == ":"):
        raise InvalidDataset(f"{where}: {text!r} is absolute; paths are relative to the data set's folder")
    if ".." in path.parts:
        raise InvalidDataset(f"{where}: {text!r} leaves the data set's folder")
    if not path.parts:
        raise InvalidDataset(f"{where}: the path is empty")
    return path.as_posix()


def require_files(root: Path, sources: Iterable[str], what: str = "images") -> None:
    """Raises MissingFiles (count and first few) or, for a link that leads outside `root`, InvalidDataset."""
    inside = os.path.realpath(root)
    folders: dict[str, str | None] = {}  # relative folder -> None when it is inside, else where it leads
    missing: list[str] = []
    total = 0
    for source in sources:
        total += 1
        parent = os.path.dirname(source)
        if parent not in folders:
            folders[parent] = _outside(os.path.join(root, parent), inside)
        target = folders[parent]
        path = os.path.join(root, source)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = target or _outside(path, inside)
                status = os.stat(path)
        except (OSError, ValueError):
            missing.append(source)
            continue
        if target is not None:
            raise InvalidDataset(
                f"{source!r} leads outside of the data set's folder {root.name!r} through a link"
            )
        if not stat.S_ISREG(status.st_mode):
            raise InvalidDataset(f"{source!r} is not a file")
    if missing:
        raise MissingFiles(
            f"{len(missing)} of {total} {what} named by the data set do not exist in {root.name!r}, "
            f"first: {missing[:_SHOWN]}"
        )


def _outside(path: str, inside: str) -> str | None:
    real = os.path.realpath(path)
    return None if real == inside or real.startswith(inside + os.sep) else real
