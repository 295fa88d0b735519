"""The mean embedding of a latent's top images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.top_images import TopImages
from fulcrum.science.concepts.vectors import unit_vectors


@dataclass(frozen=True)
class LatentMeans:
    """Mean of the unit embeddings of the top images of some latents (`latents`, ascending)."""

    latents: Int[np.ndarray, " n_latents"]
    means: Float[np.ndarray, "n_latents d_embed"]


def mean_embedding(embeddings: Float[np.ndarray, "n d_embed"]) -> Float[np.ndarray, " d_embed"]:
    """Mean of the embeddings after each is brought to norm 1; its norm is at most 1.

    Raises ComputationFailed when they cancel: the mean of opposite vectors has no direction.
    """
    if embeddings.ndim != 2 or embeddings.shape[0] < 1:
        raise InvalidInput(f"embeddings must be (n >= 1, d_embed), got shape {embeddings.shape}")
    mean: FloatArray = unit_vectors(embeddings, "embeddings").mean(axis=0)
    if np.linalg.norm(mean) < 1e-12:
        raise ComputationFailed("the embeddings of the images cancel: their mean has no direction")
    return mean


def latent_means(
    image_embeddings: Float[np.ndarray, "n_images d_embed"], top: TopImages, n_images_min: int = 2
) -> LatentMeans:
    """Mean embeddings of the latents that have at least `n_images_min` top images; the others are left out.

    Row i of `image_embeddings` is image number i. Raises InvalidInput for image numbers beyond its rows.
    """
    if image_embeddings.ndim != 2:
        raise InvalidInput(
            f"image_embeddings must be (n_images, d_embed), got shape {image_embeddings.shape}"
        )
    if n_images_min < 1:
        raise InvalidInput(f"n_images_min={n_images_min} must be >= 1")
    if top.images.size and top.images.max() >= len(image_embeddings):
        raise InvalidInput(
            f"image number {top.images.max()} has no embedding: there are {len(image_embeddings)} rows"
        )
    latents = np.flatnonzero(top.counts >= n_images_min)
    means = np.empty((len(latents), image_embeddings.shape[1]))
    for i, latent in enumerate(latents.tolist()):
        means[i] = mean_embedding(image_embeddings[top.of(latent)[0]])
    return LatentMeans(latents, means)
