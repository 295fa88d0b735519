"""Arrays as dtype, shape and bytes. Nothing that comes in is trusted."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidRequest
from fulcrum.rpc.v1 import tensor_pb2 as pb

MAX_AXES = 8

DTYPES: dict["pb.DType.ValueType", np.dtype[Any]] = {
    pb.D_TYPE_FLOAT16: np.dtype("<f2"),
    pb.D_TYPE_FLOAT32: np.dtype("<f4"),
    pb.D_TYPE_FLOAT64: np.dtype("<f8"),
    pb.D_TYPE_INT32: np.dtype("<i4"),
    pb.D_TYPE_INT64: np.dtype("<i8"),
}
_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def write_tensor(array: NDArray[Any], tensor: pb.Tensor) -> None:
    """Fills `tensor`. Raises ValueError for a number that is not finite, TypeError for a type that has no message."""
    little = array.dtype.newbyteorder("<")
    if little not in _NUMBERS:
        raise TypeError(
            f"arrays of {array.dtype} have no message: expected one of {[str(d) for d in _NUMBERS]}"
        )
    if little.kind == "f" and not np.isfinite(array).all():
        raise ValueError("holds a number that is not finite")
    tensor.dtype = _NUMBERS[little]
    tensor.shape[:] = array.shape
    tensor.data = array.astype(little, order="C", copy=False).tobytes()


def read_tensor(tensor: pb.Tensor, where: str, *, integer: bool) -> NDArray[Any]:
    """An array of its own memory, integers where `integer`, else floats.

    Raises InvalidRequest for an unknown dtype, a shape that does not account for the bytes, numbers of the wrong
    kind, and numbers that are not finite.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidRequest(f"{where} has dtype {tensor.dtype}: expected one of {sorted(DTYPES)}")
    if (dtype.kind == "i") != integer:
        raise InvalidRequest(f"{where} holds {dtype.name}: expected {'integers' if integer else 'floats'}")
    shape = tuple(tensor.shape)
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise InvalidRequest(f"{where} has shape {shape[:16]}: expected at most {MAX_AXES} sizes >= 0")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(tensor.data):
        raise InvalidRequest(
            f"{where} has {len(tensor.data)} bytes: shape {shape} of {dtype.name} needs {expected}"
        )
    if math.prod(max(n, 1) for n in shape) > np.iinfo(np.int32).max:  # an axis of 0 hides the others
        raise InvalidRequest(f"{where} has shape {shape}: the sizes are beyond what an array can have")
    array = np.frombuffer(tensor.data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(f"{where} holds a number that is not finite")
    return array
