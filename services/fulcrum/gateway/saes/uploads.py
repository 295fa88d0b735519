"""Uploaded SAEs: two files among the artifacts, looked at before anybody loads them.

The look needs no torch: the configuration must be a JSON object, the weights must have a complete safetensors header.
Whether they are an SAE that fits the model, the load finds out.
"""

import json
from typing import IO, Any

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig
from fulcrum.store.artifacts import CHUNK_BYTES, Artifacts

MAX_CONFIG_BYTES = 1 << 20
_MAX_HEADER_BYTES = (
    4 << 20
)  # an SAE has a dozen tensors; read as JSON, safetensors' own 100 MB would take gigabytes


def keep_upload(artifacts: Artifacts, cfg: IO[bytes], weights: IO[bytes], max_bytes: int) -> str:
    """The source `artifact:<sha256 of cfg>:<sha256 of weights>`.

    Raises InvalidSaeConfig, CorruptCheckpoint, PayloadTooLarge.
    """
    content = cfg.read(MAX_CONFIG_BYTES + 1)
    check_config(content)
    check_weights(weights)
    kept, _ = artifacts.put_stream(iter(lambda: weights.read(CHUNK_BYTES), b""), max_bytes=max_bytes)
    return f"artifact:{artifacts.put_bytes(content)}:{kept}"


def check_config(content: bytes) -> None:
    """Raises InvalidSaeConfig for what is not a JSON object of reasonable size."""
    if len(content) > MAX_CONFIG_BYTES:
        raise InvalidSaeConfig(f"cfg has more than {MAX_CONFIG_BYTES} bytes: expected a cfg.json")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidSaeConfig(f"cfg is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidSaeConfig(f"cfg holds {type(found).__name__}: expected a JSON object")


def check_weights(file: IO[bytes]) -> None:
    """Raises CorruptCheckpoint unless the file is safetensors from its first byte to its last; rewinds it."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size >= 8 and _MAX_HEADER_BYTES < length <= size - 8:
        raise CorruptCheckpoint(
            f"weights have a header of {length} bytes: that of an SAE has at most {_MAX_HEADER_BYTES}"
        )
    if size < 8 or length > size - 8:
        raise CorruptCheckpoint(f"weights of {size} bytes are not safetensors, or cut off")
    try:
        header = json.loads(file.read(length))
        ends = [_end(name, tensor) for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CorruptCheckpoint("weights have no readable safetensors header") from None
    if not ends:
        raise CorruptCheckpoint("weights hold no tensor")
    if max(ends) != size - 8 - length:
        raise CorruptCheckpoint(
            f"weights are cut off: tensors take {max(ends)} bytes, there are {size - 8 - length}"
        )
    file.seek(0)


def _end(name: str, tensor: Any) -> int:
    start, end = tensor["data_offsets"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end):
        raise ValueError(name)
    return end
