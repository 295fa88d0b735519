"""Several arrays in one file: written at once, read memory-mapped, each with its checksum.

Layout: magic, header length (little-endian u64), header JSON, then the arrays, each aligned to 64 bytes. The
same arrays give the same bytes, so a rebuilt file equals the first.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import CorruptIndex

Array = NDArray[Any]

_MAGIC: Final = b"FULCRUM\x01"
_ALIGN: Final = 64
_MAX_HEADER: Final = 1 << 20
_DTYPES: Final = frozenset({"|u1", "<u2", "<u4", "<u8", "<i8", "<f2", "<f4", "<f8"})
_HASH_CHUNK: Final = 1 << 24


@dataclass(frozen=True)
class ArrayFile:
    """Memory-mapped arrays by name. `header_sha256` pins the header, and through it all checksums."""

    path: Path
    kind: str
    meta: dict[str, Any]
    arrays: dict[str, Array]
    checksums: dict[str, str]
    header_sha256: str
    size_bytes: int

    def verify(self) -> None:
        """Reads everything once. Raises CorruptIndex naming the first array that is not as written."""
        for name, array in self.arrays.items():
            if _sha256(array) != self.checksums[name]:
                raise CorruptIndex(
                    f"{self.path.name}: the checksum of {name!r} is wrong: the file was altered"
                )


def write_array_file(path: Path, kind: str, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Writes beside the target, syncs and renames: the file is there completely or not at all."""
    entries: dict[str, Any] = {}
    position = 0
    flat = {
        name: np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"), copy=False)
        for name, a in arrays.items()
    }
    for name, array in flat.items():
        assert array.dtype.str in _DTYPES, array.dtype
        position = _aligned(position)
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "offset": position,
            "sha256": _sha256(array),
        }
        position += array.nbytes
    header = {"kind": kind, "meta": dict(meta), "arrays": entries, "data_bytes": position}
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    assert len(encoded) <= _MAX_HEADER
    start = _aligned(len(_MAGIC) + 8 + len(encoded))
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("wb") as file:
        file.write(_MAGIC + len(encoded).to_bytes(8, "little") + encoded)
        for name, array in flat.items():
            # Gaps are filled with zeros, so that the bytes depend on the arrays alone.
            file.write(b"\0" * (start + entries[name]["offset"] - file.tell()))
            file.write(array.reshape(-1).view(np.uint8).data)
        file.write(b"\0" * (start + position - file.tell()))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def open_array_file(path: Path, kind: str) -> ArrayFile:
    """Maps the file; reads its header only.

    Raises CorruptIndex when it is missing, truncated or of another kind.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            length = int.from_bytes(file.read(8), "little")
            encoded = file.read(min(length, _MAX_HEADER))
        size = path.stat().st_size
    except OSError as error:
        raise CorruptIndex(f"{path.name} cannot be read: {error.strerror}") from error
    if magic != _MAGIC or len(encoded) != length:
        raise CorruptIndex(f"{path.name} is no array file of this version, or its header is cut off")
    try:
        header = json.loads(encoded)
        entries, meta, found = dict(header["arrays"]), dict(header["meta"]), str(header["kind"])
        start = _aligned(len(_MAGIC) + 8 + length)
        expected = start + int(header["data_bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptIndex(f"{path.name}: the header is malformed: {error}") from error
    if found != kind:
        raise CorruptIndex(f"{path.name} holds {found!r}, expected {kind!r}")
    if size != expected:
        raise CorruptIndex(f"{path.name} has {size} bytes, expected {expected}: it is incomplete or altered")
    buffer = np.memmap(path, dtype=np.uint8, mode="r")
    arrays = {name: _view(buffer[start:], name, entry, path) for name, entry in entries.items()}
    checksums = {name: str(entry["sha256"]) for name, entry in entries.items()}
    return ArrayFile(path, kind, meta, arrays, checksums, hashlib.sha256(encoded).hexdigest(), size)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Atomic like `write_array_file`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _view(data: Array, name: str, entry: Any, path: Path) -> Array:
    try:
        text, shape, offset = str(entry["dtype"]), [int(n) for n in entry["shape"]], int(entry["offset"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptIndex(f"{path.name}: the header of {name!r} is malformed") from error
    if text not in _DTYPES or min(shape, default=0) < 0 or offset < 0 or offset % _ALIGN:
        raise CorruptIndex(f"{path.name}: the header of {name!r} is malformed: {text}, {shape}, at {offset}")
    dtype = np.dtype(text)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset + size > data.size:
        raise CorruptIndex(f"{path.name}: {name!r} reaches beyond the end of the file")
    return data[offset : offset + size].view(dtype).reshape(shape)


def _sha256(array: Array) -> str:
    digest = hashlib.sha256()
    raw = array.reshape(-1).view(np.uint8)
    for start in range(0, raw.size, _HASH_CHUNK):
        digest.update(raw[start : start + _HASH_CHUNK].data)
    return digest.hexdigest()


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN
