"""Vectors at norm 1. Without torch, as the searches that stand on it: services without models search too."""

import numpy as np
from jaxtyping import Float

from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.results import FloatArray


def unit_vectors(vectors: FloatArray, what: str) -> Float[np.ndarray, "*rows d_embed"]:
    """Vectors (last axis) at norm 1, in float64; `what` names them in errors.

    Raises InvalidInput for values that are not finite, and for a vector of zeros, which has no direction.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim < 1 or not np.isfinite(vectors).all():
        raise InvalidInput(f"{what} must be finite vectors")
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0.0)
    if (largest == 0).any():
        raise InvalidInput(f"{what} hold a vector of zeros, which has no direction")
    scaled = vectors / largest  # the square of a tiny or huge value must not leave the range of floats
    unit: FloatArray = scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
    return unit
