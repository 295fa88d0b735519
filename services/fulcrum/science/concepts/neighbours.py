"""Neighbours of a latent: those that fire on the same images, and those that write in the same direction."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from fulcrum.domain.errors import InvalidInput, LatentOutOfRange
from fulcrum.domain.results import FloatArray
from fulcrum.science.concepts.codes import SparseCodes

Measure = Literal["phi", "jaccard", "pmi"]


@dataclass(frozen=True)
class Neighbours:
    """Nearest other latents, best first, equal ones by latent number."""

    latent: int
    others: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    n_joint: Int[np.ndarray, " k"] | None = None  # images where both fire; None for directions


class StreamingCofiring:
    """Counts on how many images chosen latents fire together with every other one.

    Holds `len(latents) * d_sae` counts: for all latents of a large SAE go over the codes in chunks of
    latents.
    """

    def __init__(self, d_sae: int, latents: Int[np.ndarray, " n_latents"]) -> None:
        self.d_sae = d_sae
        self.latents = _checked(latents, d_sae)
        self.n_images = 0
        self.n_active = np.zeros(d_sae, dtype=np.int64)
        self.n_joint = np.zeros((len(self.latents), d_sae), dtype=np.int64)

    def update(self, codes: SparseCodes) -> None:
        """Adds images; the codes are per image."""
        if codes.d_sae != self.d_sae:
            raise InvalidInput(f"the batch has d_sae={codes.d_sae}, expected {self.d_sae}")
        ones = np.ones(len(codes.latents), dtype=np.int64)
        fires = csr_array((ones, codes.latents, codes.offsets), shape=(codes.n_rows, self.d_sae))
        self.n_images += codes.n_rows
        self.n_active += np.bincount(codes.latents, minlength=self.d_sae)
        self.n_joint += (fires[:, self.latents].T @ fires).toarray()

    def merge(self, other: "StreamingCofiring") -> None:
        """Adds what another shard saw. Raises InvalidInput when it counted other latents."""
        if self.d_sae != other.d_sae or not np.array_equal(self.latents, other.latents):
            raise InvalidInput("shards count different latents")
        self.n_images += other.n_images
        self.n_active += other.n_active
        self.n_joint += other.n_joint

    def measure(self, measure: Measure) -> Float[np.ndarray, "n_latents d_sae"]:
        """Association of each chosen latent with every latent; -inf where it is not defined.

        `phi`: correlation of the two firing indicators, -1 .. 1. `jaccard`: images where both fire over
        images where either does, 0 .. 1. `pmi`: log(p(both) / (p(a) p(b))) in nats; large for rare latents
        that met once.
        """
        n, joint = float(self.n_images), self.n_joint.astype(np.float64)
        a, b = self.n_active[self.latents][:, None].astype(np.float64), self.n_active[None].astype(np.float64)
        if measure == "phi":
            top, bottom = n * joint - a * b, np.sqrt(a * (n - a)) * np.sqrt(b * (n - b))
        elif measure == "jaccard":
            top, bottom = joint, a + b - joint
        elif measure == "pmi":
            top, bottom = n * joint, a * b
        else:
            raise InvalidInput(f"unknown measure {measure!r}: expected one of {get_args(Measure)}")
        value: FloatArray = np.divide(top, bottom, out=np.full(joint.shape, -np.inf), where=bottom > 0)
        if measure != "pmi":
            return value
        pmi: FloatArray = np.log(value, out=np.full(joint.shape, -np.inf), where=value > 0)
        return pmi

    def neighbours(self, measure: Measure = "phi", k: int = 10, n_joint_min: int = 2) -> list[Neighbours]:
        """Up to k latents that fire together with each chosen one on at least `n_joint_min` images."""
        if k < 1 or n_joint_min < 1:
            raise InvalidInput(f"k={k} and n_joint_min={n_joint_min} must be >= 1")
        values = np.where(self.n_joint >= n_joint_min, self.measure(measure), -np.inf)
        values[np.arange(len(self.latents)), self.latents] = -np.inf
        found = []
        for i, latent in enumerate(self.latents.tolist()):
            best = _largest(values[i], k)
            found.append(Neighbours(latent, best, values[i, best], self.n_joint[i, best]))
        return found


def cofiring_neighbours(
    codes: SparseCodes,
    latents: Int[np.ndarray, " n_latents"],
    measure: Measure = "phi",
    k: int = 10,
    n_joint_min: int = 2,
    chunk: int = 256,
) -> list[Neighbours]:
    """Co-firing neighbours of chosen latents from image-level codes in memory, `chunk` latents at a time."""
    latents = _checked(latents, codes.d_sae)
    found: list[Neighbours] = []
    for start in range(0, len(latents), chunk):
        counts = StreamingCofiring(codes.d_sae, latents[start : start + chunk])
        counts.update(codes)
        found += counts.neighbours(measure, k, n_joint_min)
    return found


def decoder_neighbours(
    W_dec: Float[Tensor, "d_sae d_in"], latents: Int[np.ndarray, " n_latents"], k: int = 10, chunk: int = 256
) -> list[Neighbours]:
    """Latents with the most similar decoder rows, by cosine; rows of norm zero have no direction and are left
    out.

    Raises InvalidInput when a chosen latent has such a row.
    """
    if W_dec.ndim != 2:
        raise InvalidInput(f"W_dec must be (d_sae, d_in), got shape {tuple(W_dec.shape)}")
    if k < 1 or chunk < 1:
        raise InvalidInput(f"k={k} and chunk={chunk} must be >= 1")
    latents = _checked(latents, W_dec.shape[0])
    W = W_dec.detach().float()
    norms = W.norm(dim=1, keepdim=True)
    unit = W / torch.where(norms > 0, norms, torch.ones_like(norms))
    empty = (norms[:, 0] == 0).cpu().numpy()
    if empty[latents].any():
        raise InvalidInput(
            f"the decoder row of latent {latents[empty[latents]][0]} is zero: it has no direction"
        )
    found = []
    for start in range(0, len(latents), chunk):
        part = latents[start : start + chunk]
        cosines = (unit[torch.as_tensor(part, device=unit.device)] @ unit.T).cpu().numpy().astype(np.float64)
        cosines[:, empty] = -np.inf
        cosines[np.arange(len(part)), part] = -np.inf
        for latent, row in zip(part.tolist(), cosines, strict=True):
            best = _largest(row, k)
            found.append(Neighbours(latent, best, np.clip(row[best], -1.0, 1.0)))
    return found


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest values above -inf, best first, equal ones by place."""
    k = min(k, len(values))
    bound = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero((values >= bound) & (values > -np.inf))
    return candidates[np.argsort(-values[candidates], kind="stable")][:k]


def _checked(latents: np.ndarray, d_sae: int) -> np.ndarray:
    latents = np.asarray(latents, dtype=np.int64)
    if latents.ndim != 1 or len(np.unique(latents)) != len(latents):
        raise InvalidInput(
            f"latents must be a list of different latents, got {len(latents)} of shape {latents.shape}"
        )
    if len(latents) and not (latents.min() >= 0 and latents.max() < d_sae):
        raise LatentOutOfRange(f"latents {latents.min()} .. {latents.max()} do not lie in 0 .. {d_sae - 1}")
    return latents
