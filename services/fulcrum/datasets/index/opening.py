"""An index whose files lie among the artifacts: a folder of links to them, opened where it is needed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from fulcrum.datasets.index.key import IndexKey
from fulcrum.datasets.index.reader import INDEX_FILE, LatentIndex


def link_files(files: Mapping[str, str], local_path: Callable[[str], Path], folder: Path) -> None:
    """Names in `folder` for files that are known by their sha256. `local_path` gives a checked local file for one
    (`Artifacts.local_path`); names that are there already are replaced, for they may point to what is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, sha256 in files.items():
        partial = folder / f".{name}.{os.getpid()}.tmp"
        partial.unlink(missing_ok=True)
        partial.symlink_to(local_path(sha256).resolve())
        os.replace(partial, folder / name)


def open_linked_index(
    files: Mapping[str, str],
    local_path: Callable[[str], Path],
    cache: Path,
    key_sha256: str,
    key: IndexKey | None = None,
) -> LatentIndex:
    """The index whose files (name to sha256) are these, from `cache/<key_sha256>`, which is made if it is not there.

    The folder is the caller's to keep or to remove: all in it can be made again. Raises CorruptIndex, and what
    `local_path` raises (UnknownArtifact, CorruptArtifact, ServiceUnavailable).
    """
    place = cache / key_sha256
    if not (place / INDEX_FILE).exists():  # also False for a link whose file is gone
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{key_sha256[:16]}-", dir=cache))
        try:
            link_files(files, local_path, made)
            with suppress(FileNotFoundError):
                os.rename(place, made / ".before")  # an incomplete one, or one whose files are gone
            with suppress(OSError):  # somebody else was faster: theirs is the same
                os.rename(made, place)
            shutil.rmtree(place / ".before", ignore_errors=True)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    # The hash of every file was checked as it was linked.
    return LatentIndex.open(place, key, verify=False)
