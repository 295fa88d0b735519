"""Finding latents by words and by image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.vectors import unit_vectors


@dataclass(frozen=True)
class LatentHits:
    """Latents found, best first, equal ones by latent number."""

    latents: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class ImageHits(LatentHits):
    """Latents of an image by how strong they are for themselves (`scores` = z / typical).

    `unseen` fire here and have no typical value, because they never fired on the data it was taken from.
    """

    unseen: Int[np.ndarray, " n_unseen"]


def search_by_words(
    query: FloatArray, embeddings: FloatArray, latents: Int[np.ndarray, " n_latents"], k: int = 20
) -> LatentHits:
    """Latents whose embedding is most like a text embedding, by cosine.

    `query` is (d_embed,); `embeddings` (n_latents, d_embed) the mean embeddings of the top images, or the
    text embeddings of the labels; row i belongs to `latents[i]`. Other shapes raise InvalidInput: what is
    compared with what never depends on which sizes happen to be equal (SCIENCE.md 8, trap 10).
    """
    query, embeddings, latents = np.asarray(query), np.asarray(embeddings), np.asarray(latents)
    if query.ndim != 1 or embeddings.ndim != 2 or embeddings.shape[1] != len(query):
        raise InvalidInput(
            f"query must be (d_embed,) and embeddings (n_latents, d_embed), "
            f"got {query.shape} and {embeddings.shape}"
        )
    if latents.shape != embeddings.shape[:1]:
        raise InvalidInput(f"{embeddings.shape[0]} embeddings but latents of shape {latents.shape}")
    cosines = unit_vectors(embeddings, "embeddings") @ unit_vectors(query, "query")
    best = _best(latents, cosines, k)
    return LatentHits(latents[best], np.clip(cosines[best], -1.0, 1.0))


def search_by_image(
    latents: Int[np.ndarray, " n_active"], values: FloatArray, typical: FloatArray, k: int = 20
) -> ImageHits:
    """Active latents of one image ranked by `value / typical[latent]`.

    `typical` is (d_sae,), a strong value of each latent on the data set (its p99 or maximum), 0 where it
    never fired: without it the list is led by the latents with the largest units, whatever the image shows.
    """
    latents, values, typical = np.asarray(latents), np.asarray(values, dtype=np.float64), np.asarray(typical)
    if typical.ndim != 1 or latents.ndim != 1 or values.shape != latents.shape:
        raise InvalidInput(
            f"latents and values must be (n_active,) and typical (d_sae,), "
            f"got {latents.shape}, {values.shape} and {typical.shape}"
        )
    if len(latents) and not (latents.min() >= 0 and latents.max() < len(typical)):
        raise LatentOutOfRange(
            f"latents {latents.min()} .. {latents.max()} do not lie in 0 .. {len(typical) - 1}"
        )
    if len(np.unique(latents)) != len(latents):
        raise InvalidInput("a latent stands twice among the active ones")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidInput("values of active latents must be finite and above zero")
    if not (np.isfinite(typical).all() and (typical >= 0).all()):
        raise InvalidInput("typical values must be finite and not negative")
    seen = typical[latents] > 0
    known = latents[seen]
    ratios = values[seen] / typical[known]
    best = _best(known, ratios, k)
    return ImageHits(known[best], ratios[best], np.sort(latents[~seen]))


def _best(latents: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise InvalidInput(f"k={k} must be >= 1")
    return np.lexsort((latents, -scores))[:k]
