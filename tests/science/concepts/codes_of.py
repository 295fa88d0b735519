"""Random sparse codes for the tests of this folder."""

import numpy as np
from hypothesis import strategies as st

from fulcrum.science.concepts.codes import SparseCodes


def dense(seed: int, n_rows: int, d_sae: int, density: float = 0.3, levels: int | None = None) -> np.ndarray:
    """Dense latents; with `levels` the values are few and ties many."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 2, (n_rows, d_sae)))
    if levels is not None:
        values = rng.integers(1, levels + 1, (n_rows, d_sae)).astype(float)
    return np.where(rng.random((n_rows, d_sae)) < density, values, 0.0).astype(np.float32)


def codes(seed: int, n_rows: int, d_sae: int, density: float = 0.3, levels: int | None = None) -> SparseCodes:
    return SparseCodes.from_dense(dense(seed, n_rows, d_sae, density, levels))


seeds = st.integers(0, 2**32 - 1)
