"""Activations of a data set's images on disk, so that the next epoch, a resumed training and the next SAE at the same
hook point read them instead of running the model.

A folder belongs to one model, precision, hook point and data set. Each image has its place in one sparse file, and
beside it a checksum, written after the row: a row that was torn by a crash, or that the disk lost, counts as absent.
Several processes may fill the same folder; they write the same bytes.
"""

import hashlib
import os
import shutil
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
_LEAVE_FREE_BYTES: Final = (
    1 << 30
)  # of the disk: an SAE that cannot be written is worse than one that is slow


class ActivationStore:
    """Rows (n_tokens, d_in) by number of the image. Nothing raises for a full disk: what does not fit is not kept."""

    def __init__(
        self, folder: Path, n_images: int, shape: tuple[int, int], dtype: torch.dtype, budget_bytes: int
    ) -> None:
        self._shape, self._dtype = shape, dtype
        self._row_bytes = shape[0] * shape[1] * dtype.itemsize
        self._budget = budget_bytes
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # the one that was used last goes last
        self._rows: NDArray[np.uint8] = _mapped(folder / "rows.bin", (n_images, self._row_bytes), np.uint8)
        self._sums: NDArray[np.uint64] = _mapped(folder / "sums.bin", (n_images,), np.uint64)
        self._disk = folder
        self._n_kept = int(np.count_nonzero(self._sums))

    @classmethod
    def open(
        cls,
        caches: Path,
        loaded: LoadedModel,
        hook_point: HookPoint,
        dataset: Dataset,
        budget_bytes: int,
    ) -> "ActivationStore":
        """That of a model, hook point and data set among `caches`; others are removed, the longest unused first, until
        this one may grow to its size within `budget_bytes`.
        """
        if budget_bytes < 0:
            raise InvalidSettings(f"a budget of {budget_bytes} bytes for activations is negative")
        dtype, tower = loaded.dtype, split_tower(loaded, hook_point)
        shape = tower.n_tokens, tower.d_in
        parts = (
            loaded.info.weights_sha256, str(dtype), loaded.device.type, str(hook_point), dataset.digest, str(shape)
        )  # fmt: skip
        folder = caches / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        wanted = min(budget_bytes, len(dataset) * shape[0] * shape[1] * dtype.itemsize)
        make_room(caches, folder, budget_bytes - wanted)
        return cls(folder, len(dataset), shape, dtype, budget_bytes)

    def get(self, number: int) -> Tensor | None:
        """An image's row on the CPU, None where it is not kept."""
        if not self._sums[number]:
            return None
        row = np.array(self._rows[number])
        if self._sums[number] != _sum_of(row):
            self._sums[number] = 0
            self._n_kept -= 1
            return None
        return torch.from_numpy(row).view(self._dtype).reshape(self._shape)

    def put(self, number: int, row: Tensor) -> None:
        """Keeps a row where there is room for it."""
        if self._sums[number] or (self._n_kept + 1) * self._row_bytes > self._budget:
            return
        # A write into a mapped file on a full disk is a signal, not an error: look before.
        if self._n_kept % 64 == 0 and shutil.disk_usage(self._disk).free < _LEAVE_FREE_BYTES:
            self._budget = 0
            return
        content = row.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._rows[number] = content
        self._sums[number] = _sum_of(content)
        self._n_kept += 1


def make_room(caches: Path, used: Path, left_bytes: int) -> None:
    """Removes folders among `caches` other than `used`, the longest unused first, until the rest fits."""
    if not caches.is_dir():
        return
    others = []
    for folder in caches.iterdir():
        with suppress(FileNotFoundError):  # another process makes room too
            if folder != used and folder.is_dir():
                others.append((folder.stat().st_mtime, folder, _size(folder)))
    total = sum(size for _, _, size in others)
    for _, folder, size in sorted(others):
        if total <= left_bytes:
            return
        shutil.rmtree(folder, ignore_errors=True)  # who still has it open goes on reading its own
        total -= size


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
