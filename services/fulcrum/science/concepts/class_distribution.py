"""Which classes the top images of a latent belong to, and whether that is more than chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom

from fulcrum.domain.errors import DatasetWithoutLabels, InvalidInput


@dataclass(frozen=True)
class ClassDistribution:
    """Classes among a latent's top images, next to the whole data set.

    `p_values[c]` is the exact hypergeometric P(at least counts[c]) for images drawn without regard to the
    class, one test per class; `dominant_p` is that of the dominant class times the number of classes
    (Bonferroni), because the class was chosen by looking. `lift` is 0 for classes that the data set does not
    hold.
    """

    counts: Int[np.ndarray, " n_classes"]
    shares: Float[np.ndarray, " n_classes"]
    lift: Float[np.ndarray, " n_classes"]  # share among the top images / share in the data set
    p_values: Float[np.ndarray, " n_classes"]
    entropy_bits: float  # 0 (one class) .. log2(n_classes)
    purity: float  # share of the dominant class
    dominant: int  # the first of equal ones
    dominant_p: float


def class_distribution(
    top_classes: Int[np.ndarray, " n_top"], class_counts: Int[np.ndarray, " n_classes"]
) -> ClassDistribution:
    """Distribution of the classes of top images (`top_classes`, class numbers) against the data set's counts.

    Raises InvalidInput for no images, unknown classes, or more images of a class than the data set holds, and
    DatasetWithoutLabels for a data set without classes.
    """
    top, base = np.asarray(top_classes), np.asarray(class_counts)
    if base.ndim != 1 or base.sum() == 0:
        raise DatasetWithoutLabels(
            "the data set has no labelled images: a class distribution needs at least one"
        )
    if (base < 0).any():
        raise InvalidInput("class_counts must not be negative")
    if top.ndim != 1 or len(top) == 0:
        raise InvalidInput(f"top_classes must list at least one image, got shape {top.shape}")
    if top.min() < 0 or top.max() >= len(base):
        raise InvalidInput(f"classes {top.min()} .. {top.max()} do not lie in 0 .. {len(base) - 1}")
    counts = np.bincount(top, minlength=len(base))
    if (counts > base).any():
        c = int(np.argmax(counts > base))
        raise InvalidInput(f"{counts[c]} top images of class {c}, of which the data set holds {base[c]}")
    n, n_images = len(top), int(base.sum())
    shares = counts / n
    lift = np.divide(shares * n_images, base, out=np.zeros(len(base)), where=base > 0)
    p_values = np.clip(hypergeom.sf(counts - 1, n_images, base, n), 0.0, 1.0)
    occurring = shares[shares > 0]
    dominant = int(np.argmax(counts))
    return ClassDistribution(
        counts=counts,
        shares=shares,
        lift=lift,
        p_values=p_values,
        entropy_bits=float(max(0.0, -(occurring * np.log2(occurring)).sum())),
        purity=float(shares[dominant]),
        dominant=dominant,
        dominant_p=float(min(1.0, p_values[dominant] * len(base))),
    )
