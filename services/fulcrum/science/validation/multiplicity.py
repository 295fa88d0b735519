"""Adjusted p values for families of tests."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from fulcrum.domain.errors import InvalidInput


def adjust(p: Float[np.ndarray, " m"], method: Literal["bh", "by"] = "bh") -> Float[np.ndarray, " m"]:
    """Adjusted p values (q) in the order of `p`: `q_(k) = min_{j>=k} m p_(j) / j`, at most 1.

    "bh" (Benjamini and Hochberg 1995) for independent or positively dependent tests; "by" (Benjamini and
    Yekutieli 2001), larger by `sum_{j<=m} 1/j`, for any. Reject where q <= the false discovery rate wanted.
    Raises InvalidInput for values outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    if values.size and not ((values >= 0) & (values <= 1)).all():  # nan fails both comparisons
        raise InvalidInput(f"p values must lie in [0, 1], got {values.min()} .. {values.max()}")
    m = len(values)
    if m == 0:
        return values
    factor = m * (float((1 / np.arange(1, m + 1)).sum()) if method == "by" else 1.0)
    order = np.argsort(values, kind="stable")
    stepped = np.minimum.accumulate((values[order] * factor / np.arange(1, m + 1))[::-1])[::-1]
    # argsort gives the place's owner, not the owner's place: q goes back to its owner by assignment (trap
    # 16).
    q = np.empty(m)
    q[order] = np.minimum(1.0, stepped)
    return q
