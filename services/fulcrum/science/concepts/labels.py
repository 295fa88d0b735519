"""What a latent is called, with the evidence for the name."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from fulcrum.domain.errors import InvalidInput, SingleClassDataset
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.embeddings import LatentMeans
from fulcrum.science.concepts.vectors import unit_vectors
from fulcrum.science.concepts.vocabulary import VocabularyEmbeddings

LabelSource = Literal["auto", "person"]


@dataclass(frozen=True)
class Label:
    """A name for a latent. `score` is a mean cosine, -1 .. 1; `margin` its lead over the next label, >= 0.

    A label that a person gave has neither.
    """

    latent: int
    text: str
    source: LabelSource
    score: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class LabelTest:
    """Does the latent find the images that carry the label? Both 0 .. 1; chance is `base_rate` for AP, 0.5
    for AUROC.

    AP depends on the base rate: compare only tests of the same one.
    """

    ap: float
    auroc: float
    n_positive: int
    n_negative: int

    @property
    def base_rate(self) -> float:
        """Share of images that carry the label: the AP of a latent that says nothing."""
        return self.n_positive / (self.n_positive + self.n_negative)


def label_scores(
    means: Float[np.ndarray, "n_latents d_embed"], vocabulary: VocabularyEmbeddings
) -> Float[np.ndarray, "n_latents n_labels"]:
    """`mean over templates of cos(e_j, E(t(label)) - E(t("")))`, e_j the mean embedding of the top images.

    Raises InvalidInput unless `means` is (n_latents, d_embed) of the vocabulary's d_embed.
    """
    d_embed = vocabulary.empty.shape[1]
    if means.ndim != 2 or means.shape[1] != d_embed:
        raise InvalidInput(f"means of shape {means.shape} are not (n_latents, d_embed={d_embed})")
    scores: FloatArray = unit_vectors(means, "means") @ vocabulary.directions().T
    return np.clip(scores, -1.0, 1.0)


def best_labels(of: LatentMeans, vocabulary: VocabularyEmbeddings, k: int = 1) -> list[list[Label]]:
    """The k best labels of each latent, best first, equal ones in the order of the vocabulary.

    Raises InvalidInput for a vocabulary of k labels or fewer: without a next label there is no margin.
    """
    n_labels = len(vocabulary.labels)
    if not 1 <= k < n_labels:
        raise InvalidInput(
            f"k={k} must lie in 1 .. {n_labels - 1}: a label is judged by its lead over the next"
        )
    scores = label_scores(of.means, vocabulary)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : k + 1]
    found = []
    for latent, row, best in zip(of.latents.tolist(), scores, order.tolist(), strict=True):
        found.append(
            [
                Label(latent, vocabulary.labels[a], "auto", float(row[a]), float(row[a] - row[b]))
                for a, b in pairwise(best)
            ]
        )
    return found


def label_test(z: FloatArray, carries: np.ndarray) -> LabelTest:
    """AP and AUROC of a latent's image values `z` (n_images,) for the images that carry a label (n_images,)
    bool.

    Equal values are one threshold, so the order of images never matters and a silent latent scores the base
    rate. Raises InvalidInput for other shapes or values that are not finite, SingleClassDataset when all or
    no images carry the label.
    """
    z, carries = np.asarray(z, dtype=np.float64), np.asarray(carries)
    if z.ndim != 1 or carries.shape != z.shape or carries.dtype != np.bool_:
        raise InvalidInput(
            f"z and carries must be (n_images,) numbers and booleans, "
            f"got {z.shape} and {carries.shape} {carries.dtype}"
        )
    if not np.isfinite(z).all():
        raise InvalidInput("z must be finite")
    n_positive = int(carries.sum())
    n_negative = len(z) - n_positive
    if n_positive == 0 or n_negative == 0:
        raise SingleClassDataset(
            f"a label is tested on images with and without it, got {n_positive} with and {n_negative} without"
        )
    _, level = np.unique(-z, return_inverse=True)  # level 0 is the largest value
    positives = np.cumsum(np.bincount(level, weights=carries))
    precision = positives / np.cumsum(np.bincount(level))
    ap = float((np.diff(positives, prepend=0.0) * precision).sum() / n_positive)
    rank_sum = float(rankdata(z)[carries].sum())
    auroc = (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    return LabelTest(ap, auroc, n_positive, n_negative)
