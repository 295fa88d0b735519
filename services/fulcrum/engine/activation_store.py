"""Activations of a data set's images on disk, so that the next epoch, a resumed training and the next SAE at the same
hook point read them instead of running the model.

A folder belongs to one model, precision, hook point and data set. Each image has its place in one sparse file, and
beside it a checksum, written after the row: a row that was torn by a crash, or that the disk lost, counts as absent.
Several processes may fill the same folder; they write the same bytes.
"""

import fcntl
import hashlib
import os
import shutil
import weakref
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.towers import split_tower

_PRESENT: Final = np.uint64(1 << 32)  # beside the checksum, which may be 0
_LOCK: Final = "lock"
_LEAVE_FREE_BYTES: Final = (
    1 << 30
)  # of the disk: an SAE that cannot be written is worse than one that is slow


class ActivationStore:
    """Rows (n_tokens, d_in) by number of the image. Nothing raises for a full disk: what does not fit is not kept.

    Rows from `budget_bytes` on are not kept, by their place: the bound is the same for all processes of a folder.
    """

    def __init__(
        self, folder: Path, n_images: int, shape: tuple[int, int], dtype: torch.dtype, budget_bytes: int
    ) -> None:
        self._shape, self._dtype = shape, dtype
        row_bytes = shape[0] * shape[1] * dtype.itemsize
        self._n_kept = max(0, min(n_images, budget_bytes // row_bytes))
        weakref.finalize(self, os.close, _hold(folder))  # in use for as long as this lives
        self._disk = folder
        self._rows: NDArray[np.uint8] = _mapped(folder / "rows.bin", (n_images, row_bytes), np.uint8)
        self._sums: NDArray[np.uint64] = _mapped(folder / "sums.bin", (n_images,), np.uint64)
        self._n_put = 0

    @classmethod
    def open(
        cls,
        caches: Path,
        loaded: LoadedModel,
        hook_point: HookPoint,
        dataset: Dataset,
        budget_bytes: int,
    ) -> "ActivationStore":
        """That of a model, hook point and data set among `caches`; others that nobody has open are removed, the longest
        unused first, until this one may grow to its size within `budget_bytes`.
        """
        if budget_bytes < 0:
            raise InvalidSettings(f"a budget of {budget_bytes} bytes for activations is negative")
        dtype, tower = loaded.dtype, split_tower(loaded, hook_point)
        shape = tower.n_tokens, tower.d_in
        parts = (
            loaded.info.weights_sha256, loaded.info.preprocess_sha256, str(dtype), loaded.device.type,
            str(hook_point), dataset.digest, str(shape),
        )  # fmt: skip
        folder = caches / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        wanted = min(budget_bytes, len(dataset) * shape[0] * shape[1] * dtype.itemsize)
        others = make_room(caches, folder, budget_bytes - wanted)
        return cls(folder, len(dataset), shape, dtype, budget_bytes - others)

    def get(self, number: int) -> Tensor | None:
        """An image's row on the CPU, None where it is not kept."""
        if not self._sums[number]:
            return None
        row = np.array(self._rows[number])
        if self._sums[number] != _sum_of(row):
            self._sums[number] = 0
            return None
        return torch.from_numpy(row).view(self._dtype).reshape(self._shape)

    def put(self, number: int, row: Tensor) -> None:
        """Keeps a row where there is room for it."""
        if self._sums[number] or number >= self._n_kept:
            return
        # A write into a mapped file on a full disk is a signal, not an error: look before.
        if self._n_put % 64 == 0 and shutil.disk_usage(self._disk).free < _LEAVE_FREE_BYTES:
            self._n_kept = 0
            return
        content = row.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._rows[number] = content
        self._sums[number] = _sum_of(content)
        self._n_put += 1


def make_room(caches: Path, used: Path, left_bytes: int) -> int:
    """Removes folders among `caches` other than `used`, the longest unused first, until the rest fits; those that
    somebody has open stay. Bytes of the rest.
    """
    if not caches.is_dir():
        return 0
    others = []
    for folder in caches.iterdir():
        with suppress(FileNotFoundError):  # another process makes room too
            if folder != used and folder.is_dir():
                others.append((folder.stat().st_mtime, folder, _size(folder)))
    total = sum(size for _, _, size in others)
    for _, folder, size in sorted(others):
        if total <= left_bytes:
            break
        with suppress(FileNotFoundError, BlockingIOError), (folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
    return total


def _hold(folder: Path) -> int:
    """Makes the folder if need be and marks it as in use, until the descriptor is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed between the two: make it again
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_there(lock, folder):
                os.utime(folder)  # the one that was used last goes last
                return lock
            os.close(lock)


def _is_there(lock: int, folder: Path) -> bool:
    """Whether the lock that is held is the folder's, and not that of one that was removed while it was waited for."""
    try:
        return os.path.samestat(os.fstat(lock), (folder / _LOCK).stat())
    except FileNotFoundError:
        return False


def _size(folder: Path) -> int:
    """Bytes on disk: the files are sparse."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())


def _mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:
        if file.tell() < size:
            file.truncate(size)  # zeros that take no room until they are written
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _sum_of(row: NDArray[np.uint8]) -> np.uint64:
    return _PRESENT | np.uint64(zlib.crc32(row.data))
