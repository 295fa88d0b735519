"""The check that every data set gets at import: what cannot be read, what is twice there, what leaks."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.byte_sources import Progress
from fulcrum.datasets.hygiene.decoding import DEFAULT_LIMITS, Limits
from fulcrum.datasets.hygiene.facts import ImageFacts, facts_of, read_image
from fulcrum.datasets.hygiene.leakage import LeakageReport, find_leakage
from fulcrum.datasets.hygiene.near_duplicates import CosineLinks, cosine_links, hash_clusters, merge
from fulcrum.datasets.hygiene.phash import thumbnails_agree
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.domain.errors import FulcrumError, InvalidSettings

# Bits of 64. Resized, recompressed and slightly brightened copies stay within; see tests.
DEFAULT_RADIUS: Final = 6
MIN_COSINE: Final = 0.95


@dataclass(frozen=True)
class ImageProblem:
    """An image that cannot be used. `reason` is that of the domain error."""

    id: str
    reason: str
    message: str


@dataclass(frozen=True)
class HygieneReport:
    """Columns (n,) follow `dataset.samples`; of an unreadable image pixel hash is "", the rest 0.

    `clusters` holds for each image the smallest number of its duplicate cluster; unreadable images are joined
    by equal bytes only. `hash_clusters` are those before embeddings were compared, `links` what these joined
    further: numbers of two images and their cosine, for each image the most similar one, most similar pairs first.
    `bytes_clusters` and `pixels_clusters` hold the smallest number of those with equal bytes and equal pixels.
    """

    n_images: int
    problems: tuple[ImageProblem, ...]
    readable: NDArray[np.bool_]
    bytes_sha256: tuple[str, ...]
    pixels_sha256: tuple[str, ...]
    phashes: NDArray[np.uint64]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    n_rotated: int  # turned upright by their EXIF orientation
    n_converted: int  # from grey, palette, CMYK, transparency
    clusters: NDArray[np.int64]
    hash_clusters: NDArray[np.int64]
    links: tuple[tuple[int, int, float], ...]
    bytes_clusters: NDArray[np.int64]
    pixels_clusters: NDArray[np.int64]
    embeddings: NDArray[np.floating[Any]] | None  # (n, d), those that were compared

    @property
    def duplicates(self) -> tuple[tuple[int, ...], ...]:
        """Clusters of two or more images, as numbers."""
        order = np.argsort(self.clusters, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.clusters[order])) + 1)
        return tuple(tuple(int(n) for n in g) for g in groups if g.size > 1)

    def leakage(self, dataset: Dataset, kept: NDArray[np.integer[Any]] | None = None) -> LeakageReport:
        """What crosses the splits that `dataset` has now; its images are all, or those numbered `kept`, in order."""
        rows = np.arange(self.n_images) if kept is None else kept
        if len(dataset) != len(rows):
            raise InvalidSettings(f"a data set of {len(rows)} images was looked at, not of {len(dataset)}")
        return find_leakage(
            dataset,
            self.clusters[rows],
            bytes_clusters=self.bytes_clusters[rows],
            pixels_clusters=self.pixels_clusters[rows],
            hash_clusters=self.hash_clusters[rows],
            embeddings=None if self.embeddings is None else self.embeddings[rows],
        )


def inspect_dataset(
    dataset: Dataset,
    *,
    limits: Limits = DEFAULT_LIMITS,
    radius: int = DEFAULT_RADIUS,
    min_correlation: float = 0.9,
    embeddings: NDArray[np.floating[Any]] | None = None,
    min_cosine: float = MIN_COSINE,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> HygieneReport:
    """Decodes every image once. An image that cannot be read is a problem of the report, not an error.

    Near-duplicates: perceptual hashes within `radius` bits whose thumbnails correlate by `min_correlation`;
    where embeddings (n, d) are given, also a cosine of `min_cosine`; a row of zeros is an image without one.
    `progress(done, total)` is called now and then.
    """
    _check_shape(embeddings, dataset)
    facts: list[ImageFacts] = []
    for fact in _facts(dataset, limits, n_threads or min(8, os.cpu_count() or 1)):
        facts.append(fact)
        if progress is not None and (len(facts) % 64 == 0 or len(facts) == len(dataset)):
            progress(len(facts), len(dataset))
    return report_of(
        dataset,
        facts,
        radius=radius,
        min_correlation=min_correlation,
        embeddings=embeddings,
        min_cosine=min_cosine,
    )


def report_of(
    dataset: Dataset,
    facts: Sequence[ImageFacts],
    *,
    radius: int = DEFAULT_RADIUS,
    min_correlation: float = 0.9,
    embeddings: NDArray[np.floating[Any]] | None = None,
    min_cosine: float = MIN_COSINE,
    progress: Progress | None = None,
) -> HygieneReport:
    """The report of images that were looked at before, in the order of the data set.

    `progress` is that of comparing embeddings, which is what takes long.
    """
    _check_shape(embeddings, dataset)
    readable = np.array([f.error is None for f in facts])
    phashes = np.array([f.phash for f in facts], dtype=np.uint64)
    by_bytes = _equal([f.bytes_sha256 for f in facts])
    by_pixels = _equal([f.pixels_sha256 for f in facts])
    clusters = merge(by_bytes, np.arange(len(facts)), by_pixels)
    there = np.flatnonzero(readable)
    if there.size:
        small = np.stack([f.thumbnail for f in facts if f.thumbnail is not None])
        # Labels in terms of readable images only; equal images are all readable or none is.
        linked = np.searchsorted(there, clusters[there])
        linked = hash_clusters(
            phashes[there], radius, linked, lambda a, b: thumbnails_agree(small, a, b, min_correlation)
        )
        clusters = merge(clusters, there, there[linked])
    by_hash = clusters
    links: tuple[tuple[int, int, float], ...] = ()
    if embeddings is not None:
        clusters, links = _joined(clusters, embeddings, readable, min_cosine, progress)
    return HygieneReport(
        n_images=len(dataset),
        problems=tuple(
            ImageProblem(s.id, f.error.reason, str(f.error))
            for s, f in zip(dataset.samples, facts, strict=True)
            if f.error is not None
        ),
        readable=readable,
        bytes_sha256=tuple(f.bytes_sha256 for f in facts),
        pixels_sha256=tuple(f.pixels_sha256 for f in facts),
        phashes=phashes,
        widths=np.array([f.width for f in facts], dtype=np.int64),
        heights=np.array([f.height for f in facts], dtype=np.int64),
        n_rotated=sum(f.was_rotated for f in facts),
        n_converted=sum(f.was_converted for f in facts),
        clusters=clusters,
        hash_clusters=by_hash,
        links=links,
        bytes_clusters=by_bytes,
        pixels_clusters=by_pixels,
        embeddings=embeddings,
    )


def _check_shape(embeddings: NDArray[np.floating[Any]] | None, dataset: Dataset) -> None:
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != len(dataset)):
        raise InvalidSettings(f"embeddings must be ({len(dataset)}, d), got {embeddings.shape}")


def _joined(
    clusters: NDArray[np.int64],
    embeddings: NDArray[np.floating[Any]],
    readable: NDArray[np.bool_],
    min_cosine: float,
    progress: Progress | None,
) -> tuple[NDArray[np.int64], tuple[tuple[int, int, float], ...]]:
    """Clusters joined further, and the links that did it."""
    there = np.flatnonzero(readable & embeddings.any(axis=1))
    if not there.size:
        return clusters, ()
    # Labels in terms of these images only.
    _, first, group = np.unique(clusters[there], return_index=True, return_inverse=True)
    rows = embeddings if there.size == len(embeddings) else embeddings[there]
    found: CosineLinks = cosine_links(rows, first[group], min_cosine, progress=progress)
    pairs = zip(*(c.tolist() for c in found.pairs()), strict=True)
    links = tuple((int(there[a]), int(there[b]), float(cosine)) for a, b, cosine in pairs)
    return merge(clusters, there, there[found.labels]), links


def _facts(dataset: Dataset, limits: Limits, n_threads: int) -> Iterator[ImageFacts]:
    """In order, with a bounded number of images in flight."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[ImageFacts]] = deque()
        for sample in dataset.samples:
            waiting.append(pool.submit(_look_at, dataset, sample, limits))
            if len(waiting) >= 4 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look_at(dataset: Dataset, sample: Sample, limits: Limits) -> ImageFacts:
    try:
        content = read_image(dataset, sample, limits)
    except FulcrumError as error:
        return ImageFacts(error=error)
    return facts_of(content, limits)[0]


def _equal(hashes: list[str]) -> NDArray[np.int64]:
    """For each entry the first number with the same hash; an empty one stands for itself."""
    first: dict[str, int] = {}
    return np.array([i if not h else first.setdefault(h, i) for i, h in enumerate(hashes)], dtype=np.int64)
