"""What every latent of an SAE stands for, from an index: no image goes through the model again."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.description import NONE, VERSION, DescribedIn, write_description
from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.results import FloatArray
from fulcrum.domain.tasks import DEFAULT_TEMPLATES
from fulcrum.engine.encoding import embed_texts
from fulcrum.engine.residency import Steerable
from fulcrum.science.concepts.class_distribution import class_distribution
from fulcrum.science.concepts.codes import SparseCodes
from fulcrum.science.concepts.embeddings import LatentMeans, latent_means
from fulcrum.science.concepts.labels import Label, best_labels
from fulcrum.science.concepts.map import latent_map
from fulcrum.science.concepts.neighbours import Neighbours, cofiring_neighbours, decoder_neighbours
from fulcrum.science.concepts.scores import clarity, polysemanticity, redundancy
from fulcrum.science.concepts.top_images import StreamingTopImages, TopImages
from fulcrum.science.concepts.vocabulary import embed_vocabulary, read_vocabulary

# Called with a phrase for people, and what is done of how much.
Said = Callable[[str, int, int], None]
Columns = dict[str, NDArray[Any]]

__all__ = ["VERSION", "built_in_vocabulary", "describe_latents"]

N_LABELS: Final = 3
N_NEIGHBOURS: Final = 10
_WORDS: Final = Path(__file__).parent.parent / "science" / "concepts" / "words.txt"
_CHUNK: Final = 256  # images, or latents


def built_in_vocabulary() -> tuple[str, ...]:
    """The words that are taken when nobody gives others."""
    return read_vocabulary(_WORDS)


def describe_latents(
    steerable: Steerable,
    dataset: Dataset,
    index: LatentIndex,
    path: Path,
    vocabulary: Sequence[str] = (),
    n_top: int = 16,
    seed: int = 0,
    said: Said | None = None,
) -> None:
    """Writes the description of every latent that fires to `path`; `seed` is that of the map.

    An empty `vocabulary` takes the built-in one. Raises EmptyPrompts, InvalidPrompt and InvalidInput for words that
    cannot be labels (at least four are needed).
    """
    say = said or (lambda what, done, total: None)
    words = tuple(vocabulary) or built_in_vocabulary()
    statistics = index.statistics
    fires = np.flatnonzero(statistics.n_images_active > 0)
    codes, by_max, by_mean = _read(index, n_top, say)
    means = latent_means(index.embeddings(), by_max)
    loaded = steerable.loaded

    columns: Columns = {
        "latents": fires.astype(np.int64),
        "n_images_active": statistics.n_images_active[fires],
        "n_tokens_active": statistics.n_tokens_active[fires],
        "max": statistics.max[fires],
        "mean": statistics.mean[fires],
        "mean_active": statistics.mean_active[fires],
        "p99": statistics.p99[fires],
        "histogram": statistics.histogram[fires].astype(np.uint32),
        "top_max_images": by_max.images[fires],
        "top_max_values": by_max.scores[fires],
        "top_mean_images": by_mean.images[fires],
        "top_mean_values": by_mean.scores[fires],
    }
    columns |= _classes(dataset, by_max, fires)
    say("labels", 0, len(fires))
    embedded = embed_vocabulary(
        lambda texts: embed_texts(loaded, texts, None).float().cpu().numpy(), words, DEFAULT_TEMPLATES
    )
    place = np.searchsorted(fires, means.latents)
    columns |= _labels(place, len(fires), words, best_labels(means, embedded, N_LABELS))
    columns |= _scores(index.embeddings(), by_max, means, fires, say)
    columns |= _neighbours(steerable, codes, fires, say)
    say("map", 0, len(fires))
    embeddings = np.zeros((len(fires), index.layout.d_embed), dtype=np.float32)
    embeddings[place] = means.means
    places = np.full((len(fires), 2), np.nan, dtype=np.float32)
    if len(place):
        places[place] = latent_map(means.means, seed)
    columns |= {"embeddings": embeddings, "places": places}
    geometry = loaded.preprocess.geometry
    write_description(
        path,
        columns,
        words,
        DescribedIn(
            index_key=index.key.sha256,
            n_images=index.layout.n_images,
            n_tokens=index.layout.n_tokens,
            d_sae=index.layout.d_sae,
            has_cls=index.layout.has_cls,
            grid=loaded.info.grid,
            image_size=geometry.image_size,
            resize_mode=geometry.resize_mode,
            class_names=dataset.class_names,
            class_counts=tuple(_class_counts(dataset).tolist()),
            templates=DEFAULT_TEMPLATES,
        ),
    )


def _read(index: LatentIndex, n_top: int, say: Said) -> tuple[SparseCodes, TopImages, TopImages]:
    """Image maxima of all images, and the top images by maximum and by mean."""
    layout = index.layout
    by_max, by_mean = StreamingTopImages(layout.d_sae, n_top), StreamingTopImages(layout.d_sae, n_top)
    maxima: list[SparseCodes] = []
    for start in range(0, layout.n_images, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, layout.n_images))
        of_tokens = index.images(numbers)
        tokens = SparseCodes(of_tokens.offsets, of_tokens.latents, of_tokens.values, layout.d_sae)
        maxima.append(tokens.per_image(layout.n_tokens, "max"))
        by_max.update(numbers, maxima[-1])
        by_mean.update(numbers, tokens.per_image(layout.n_tokens, "mean"))
        say("top images", int(numbers[-1]) + 1, layout.n_images)
    counts = np.concatenate([np.diff(codes.offsets) for codes in maxima])
    everything = SparseCodes(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([codes.latents for codes in maxima]),
        np.concatenate([codes.values for codes in maxima]),
        layout.d_sae,
    )
    return everything, by_max.result(), by_mean.result()


def _class_counts(dataset: Dataset) -> NDArray[np.int64]:
    known = dataset.label_numbers[dataset.label_numbers >= 0]
    return np.bincount(known, minlength=len(dataset.class_names)).astype(np.int64)


def _classes(dataset: Dataset, top: TopImages, fires: NDArray[np.int64]) -> Columns:
    base, numbers = _class_counts(dataset), dataset.label_numbers
    counts = np.zeros((len(fires), len(base)), dtype=np.uint16)
    p = np.full(len(fires), np.nan)
    for row, latent in enumerate(fires.tolist()):
        classes = numbers[top.of(latent)[0]]
        labelled = classes[classes >= 0]
        if len(labelled):
            found = class_distribution(labelled, base)
            counts[row], p[row] = found.counts, found.dominant_p
    return {"class_counts": counts, "dominant_p": p}


def _labels(
    place: NDArray[np.int64], n: int, words: tuple[str, ...], found: Sequence[Sequence[Label]]
) -> Columns:
    number = {word: i for i, word in enumerate(words)}
    labels = np.full((n, N_LABELS), NONE, dtype=np.int64)
    scores = np.full((n, N_LABELS), np.nan, dtype=np.float32)
    margins = np.full((n, N_LABELS), np.nan, dtype=np.float32)
    for row, best in zip(place.tolist(), found, strict=True):
        for i, label in enumerate(best):
            labels[row, i], scores[row, i], margins[row, i] = number[label.text], label.score, label.margin
    return {"labels": labels, "label_scores": scores, "label_margins": margins}


def _scores(
    embeddings: FloatArray, top: TopImages, means: LatentMeans, fires: NDArray[np.int64], say: Said
) -> Columns:
    clear, poly = np.full(len(fires), np.nan), np.full(len(fires), np.nan)
    same, partner = np.full(len(fires), np.nan), np.full(len(fires), NONE, dtype=np.int64)
    place = np.searchsorted(fires, means.latents)
    for n, (row, latent) in enumerate(zip(place.tolist(), means.latents.tolist(), strict=True)):
        images = embeddings[top.of(latent)[0]]
        clear[row] = clarity(images)
        if len(images) >= 4:  # two images are always two clusters
            try:
                poly[row] = polysemanticity(images).value
            except ComputationFailed:
                poly[row] = np.nan  # the embeddings of a cluster cancel
        if n % _CHUNK == 0:
            say("scores", n, len(place))
    if len(place) >= 2:
        found = redundancy(means.means)
        same[place], partner[place] = found.values, means.latents[found.nearest]
    return {"clarity": clear, "polysemanticity": poly, "redundancy": same, "redundant_with": partner}


def _neighbours(steerable: Steerable, codes: SparseCodes, fires: NDArray[np.int64], say: Said) -> Columns:
    norms = steerable.sae.W_dec.detach().float().norm(dim=1).cpu().numpy()
    together: list[Neighbours] = []
    for start in range(0, len(fires), _CHUNK):
        say("neighbours", start, len(fires))
        together += cofiring_neighbours(codes, fires[start : start + _CHUNK], k=N_NEIGHBOURS)
    alike = {
        found.latent: found
        for found in decoder_neighbours(steerable.sae.W_dec, fires[norms[fires] > 0], k=N_NEIGHBOURS)
    }
    shape = (len(fires), N_NEIGHBOURS)
    columns: Columns = {
        "cofiring": np.full(shape, NONE, dtype=np.int64),
        "cofiring_scores": np.full(shape, np.nan, dtype=np.float32),
        "cofiring_joint": np.zeros(shape, dtype=np.int64),
        "decoder": np.full(shape, NONE, dtype=np.int64),
        "decoder_scores": np.full(shape, np.nan, dtype=np.float32),
    }
    for row, (latent, found) in enumerate(zip(fires.tolist(), together, strict=True)):
        k = len(found.others)
        columns["cofiring"][row, :k], columns["cofiring_scores"][row, :k] = found.others, found.scores
        assert found.n_joint is not None
        columns["cofiring_joint"][row, :k] = found.n_joint
        if latent in alike:
            near = alike[latent]
            columns["decoder"][row, : len(near.others)] = near.others
            columns["decoder_scores"][row, : len(near.others)] = near.scores
    return columns
