"""A search for experts as one question: what identifies it, which parts it stands on, and what comes of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.concepts import NEGATIVE, POSITIVE, Examples, image_examples, sentence_examples
from fulcrum.datasets.expert_table import EXPERTS, LINEAR, RANDOM_WEIGHTS
from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.index.array_file import open_array_file, write_array_file
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.concept_sets import ConceptSet
from fulcrum.domain.errors import CorruptIndex, InvalidSettings
from fulcrum.domain.experts import EXPERTISE_ARRAYS, Expertise, UnitLayer
from fulcrum.domain.jobs import FindExperts, content_key
from fulcrum.domain.language_models import chosen_layers
from fulcrum.domain.models import ModelRef
from fulcrum.engine.expert_responses import (
    DENSE,
    EMBEDDINGS,
    KIND,
    ImagePart,
    LanguagePart,
    LatentPart,
    Part,
    TextPart,
    piece_size,
    random_twin,
    random_twin_of_latents,
    scope_of,
)
from fulcrum.engine.language_models import LanguageSource
from fulcrum.engine.residency import Residency
from fulcrum.science.experts.ap import expertise
from fulcrum.science.experts.maps import transported
from fulcrum.science.experts.sparse_ap import SparseResponses, sparse_expertise
from fulcrum.science.responses.clip import tower_layers
from fulcrum.science.responses.text import check_texts, text_embeddings
from fulcrum.science.vision.classes import encode_texts
from fulcrum.science.vision.loaded import LoadedModel

VERSION: Final = 3  # of the numbers that the same question leads to; the third has linear transports
N_LINEAR: Final = 128  # of a layer, for each concept
MAX_RESPONSE_BYTES: Final = 16 << 30

Numbers = NDArray[np.int64]
# Called with a phrase for people, how much is done, of how much, and what is counted.
Said = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Searched:
    """The model whose units are searched. `embed` makes rows of words, for the baseline of the bare word."""

    weights_sha256: str
    device_type: str
    dtype: str
    embed: Callable[[Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True)
class Search:
    """A question that can be answered. `parts` has what each variant is computed by; what an index holds needs none."""

    model: Searched
    examples: Examples
    layers: tuple[UnitLayer, ...]
    parts: Mapping[str, Part]
    index: LatentIndex | None
    spec: FindExperts

    @property
    def pieces(self) -> list[Numbers]:
        """Examples of each part of a variant."""
        numbers = self.examples.numbers
        size = piece_size(len(numbers))
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]

    @property
    def n_units(self) -> int:
        """Over all layers."""
        return sum(layer.n_units for layer in self.layers)

    def shards(self) -> list[tuple[str, str, int]]:
        """(key, variant, number of the piece) of every part."""
        return [
            (part.key(piece), variant, number)
            for variant, part in self.parts.items()
            for number, piece in enumerate(self.pieces)
        ]

    @property
    def key(self) -> str:
        """Hash of all that determines the result."""
        examples = self.examples
        labels = hashlib.sha256(np.ascontiguousarray(examples.labels).tobytes()).hexdigest()
        return content_key(
            what="experts",
            version=VERSION,
            parts=[key for key, *_ in self.shards()],
            index=None if self.index is None else self.index.key.sha256,
            tokens=self.spec.tokens,
            layers=[[x.name, x.n_units] for x in self.layers],
            numbers=hashlib.sha256(examples.numbers.tobytes()).hexdigest(),
            labels=labels,
            names=list(examples.names),
            domains=list(examples.domains),
            ratings=[[r.name, r.sha256] for r in self.spec.ratings],
            seed=self.spec.seed,
        )


def open_tower_search(
    residency: Residency,
    ref: ModelRef,
    spec: FindExperts,
    *,
    dataset: Dataset | None = None,
    concepts: ConceptSet | None = None,
) -> Search:
    """Units of the vision tower over a data set, or of the text tower over a concept set.

    Raises as `image_examples` does, InvalidSettings for more responses than are kept, UnknownModel, OutOfMemory.
    """
    loaded, twin = residency.model(ref), residency.model(random_twin(ref, spec.seed))
    if dataset is not None:
        examples = image_examples(dataset, spec)
        of_tower = [tower_layers(m, "visual", spec.sites) for m in (loaded, twin)]
        parts: dict[str, Part] = {
            name: ImagePart(model, layers, dataset, spec.tokens)
            for name, model, layers in zip((EXPERTS, RANDOM_WEIGHTS), (loaded, twin), of_tower, strict=True)
        }
    else:
        assert concepts is not None
        examples = sentence_examples(concepts)
        of_tower = [tower_layers(m, "text", spec.sites) for m in (loaded, twin)]
        parts = {
            name: TextPart(model, loaded, layers, concepts.sentences)
            for name, model, layers in zip((EXPERTS, RANDOM_WEIGHTS), (loaded, twin), of_tower, strict=True)
        }
    layers = _numbered([(layer.name, layer.n_units) for layer in of_tower[0]])
    _check_size(examples, layers, "(n_pos, n_neg, split, among) or fewer sites")
    return Search(_searched(loaded), examples, layers, parts, None, spec)


def open_language_search(
    residency: Residency, source: LanguageSource, spec: FindExperts, concepts: ConceptSet
) -> Search:
    """Linear layers of a language model over a concept set.

    Raises InvalidInput for a sentence that is too long or layers that there are not, InvalidSettings for more responses
    than are kept, UnknownModel, CorruptCheckpoint, MissingDependency, OutOfMemory.
    """
    info = residency.language_info(source)
    units = dict(info.layers)
    names = chosen_layers(list(units), spec.layers)
    examples = sentence_examples(concepts)
    layers = _numbered([(name, units[name]) for name in names])
    _check_size(examples, layers, "or fewer layers")
    # Not the seed itself: a model that is random too was likely made from 0.
    twin = replace(source, twin_seed=spec.seed + 1)
    parts: dict[str, Part] = {
        name: LanguagePart(residency, one, names, concepts.sentences)
        for name, one in ((EXPERTS, source), (RANDOM_WEIGHTS, twin))
    }

    def embed(words: Sequence[str]) -> NDArray[np.float64]:
        return text_embeddings(residency.language_model(source).text, words).astype(np.float64)

    model = Searched(info.weights_sha256, info.device_type, info.dtype, embed)
    return Search(model, examples, layers, parts, None, spec)


def check_sentences(residency: Residency, search: Search) -> None:
    """Runs none of them. Raises InvalidInput for a sentence that is empty or too long for the model."""
    numbers = search.examples.numbers
    match search.parts.get(EXPERTS):
        case LanguagePart(source=source, sentences=sentences):
            check_texts(residency.language_model(source).text, [sentences[n] for n in numbers])
        case TextPart(speaks=speaks, sentences=sentences):
            speaks.tokenizer([sentences[n] for n in numbers])
        case _:
            pass


def open_latent_search(
    residency: Residency, ref: ModelRef, sae: str, spec: FindExperts, dataset: Dataset, index: LatentIndex
) -> Search:
    """Latents over an indexed data set. Raises as `image_examples` does."""
    steerable = residency.steerable(ref, sae)
    twin = random_twin_of_latents(residency, steerable, random_twin(ref, spec.seed))
    layers = (UnitLayer("latents", 0, steerable.sae.config.d_sae),)
    parts: dict[str, Part] = {RANDOM_WEIGHTS: LatentPart(twin, dataset, spec.tokens)}
    return Search(_searched(steerable.loaded), image_examples(dataset, spec), layers, parts, index, spec)


@dataclass(frozen=True, eq=False)
class Ranked:
    """One variant's units: what is known of them by concept, and the baselines' vectors."""

    concepts: tuple[Expertise, ...]
    mean_activation: NDArray[np.float64]  # (n_concepts, n_units) over the positives
    mean_embedding: NDArray[np.float64]  # (n_concepts, d_embed) over the positives
    linear: Mapping[str, NDArray[Any]]  # LINEAR of the table


def rank(search: Search, variant: str, files: Sequence[Path], folder: Path, say: Said) -> Ranked:
    """From the files of a variant's parts, in order; of latents that an index holds there are none.

    Layers that were ranked before in `folder` are read from there.
    """
    opened = [open_array_file(path, KIND) for path in files]
    if sum(int(f.meta["n_examples"]) for f in opened) != (len(search.examples.numbers) if files else 0):
        raise CorruptIndex("the stored responses are not of the examples that are asked about")
    labels = search.examples.labels
    weights = (labels == POSITIVE) / search.examples.n_pos[:, None]
    if not files:
        assert search.index is not None
        embeddings = search.index.embeddings(search.examples.numbers)
    else:
        embeddings = np.concatenate([f.arrays[EMBEDDINGS] for f in opened])
    found: list[dict[str, NDArray[np.float64]]] = []
    for number, layer in enumerate(search.layers):
        what = "ranking units" if variant == EXPERTS else "ranking units of random weights"
        say(what, layer.first, search.n_units, "units")
        path = folder / f"ranked-{VERSION}-{variant}-{number}.arrays"
        if not path.exists():
            if layer.name == "latents":
                sparse = _sparse(search, opened)
                many, means = sparse_expertise(sparse, labels), _sparse_means(sparse, weights)
                responses_of: Callable[[NDArray[np.int64]], NDArray[np.float32]] = sparse.rows
            else:
                part = slice(layer.first, layer.first + layer.n_units)
                dense = np.concatenate([f.arrays[DENSE][part] for f in opened], axis=1)
                many, means = expertise(dense, labels), weights @ dense.T.astype(np.float64)
                responses_of = dense.__getitem__
            arrays = {name: np.stack([getattr(e, name) for e in many]) for name in EXPERTISE_ARRAYS}
            arrays |= linear_transports([e.ap for e in many], responses_of, labels)
            write_array_file(path, "ranked", {**arrays, "means": means}, {})
        found.append(dict(open_array_file(path, "ranked").arrays))
    joined = {name: np.concatenate([f[name] for f in found], axis=1) for name in (*EXPERTISE_ARRAYS, "means")}
    concepts = tuple(
        Expertise(**{name: joined[name][c] for name in EXPERTISE_ARRAYS}, n_pos=int(n_pos), n_neg=int(n_neg))
        for c, (n_pos, n_neg) in enumerate(zip(search.examples.n_pos, search.examples.n_neg, strict=True))
    )
    linear = {name: np.stack([f[name] for f in found], axis=1) for name in sorted(LINEAR)}
    return Ranked(concepts, joined["means"], weights @ embeddings.astype(np.float64), linear)


def linear_transports(
    ap: Sequence[NDArray[np.float64]],
    responses_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    labels: NDArray[np.int8],
) -> dict[str, NDArray[Any]]:
    """The linear transport of the best units of a layer by AP, (n_concepts, N_LINEAR) of each array of LINEAR.

    It takes the sorted responses themselves, which are gone once a table is written: all units would be as much work
    as the ranking, and nobody steers thousands.
    """
    n = len(ap)
    found: dict[str, NDArray[Any]] = {
        "linear_units": np.full((n, N_LINEAR), -1, dtype=np.int64),
        "linear_scale": np.ones((n, N_LINEAR, 2)),
        "linear_shift": np.zeros((n, N_LINEAR, 2)),
    }
    for concept, (values, row) in enumerate(zip(ap, labels, strict=True)):
        best = np.argsort(-values, kind="stable")[:N_LINEAR]
        responses = responses_of(best)
        off, on = responses[:, row == NEGATIVE], responses[:, row == POSITIVE]
        found["linear_units"][concept, : len(best)] = best
        for side, (source, target) in enumerate(((off, on), (on, off))):
            maps = transported(best, source, target, "linear")
            found["linear_scale"][concept, : len(best), side] = maps.scale
            found["linear_shift"][concept, : len(best), side] = maps.shift
    return found


def _sparse(search: Search, opened: Sequence[Any]) -> SparseResponses:
    numbers, n_units = search.examples.numbers, search.n_units
    if opened:
        starts = np.cumsum([0, *(int(f.meta["n_examples"]) for f in opened)])
        latents = np.concatenate([f.arrays["latents"] for f in opened])
        examples = np.concatenate([f.arrays["examples"] + s for f, s in zip(opened, starts, strict=False)])
        values = np.concatenate([f.arrays["values"] for f in opened])
    else:
        assert search.index is not None
        latents, images, values = search.index.image_maxima(scope_of(search.spec.tokens))
        place = np.full(search.index.layout.n_images, -1, dtype=np.int64)
        place[numbers] = np.arange(len(numbers))
        kept = place[images] >= 0
        latents, examples, values = latents[kept], place[images][kept], values[kept]
    return SparseResponses.create(latents, examples, values, n_units, len(numbers))


def _sparse_means(responses: SparseResponses, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = np.repeat(np.arange(responses.n_units), np.diff(responses.starts))
    values = responses.values.astype(np.float64)
    return np.stack(
        [np.bincount(unit, values * row[responses.examples], responses.n_units) for row in weights]
    )


def _numbered(layers: Sequence[tuple[str, int]]) -> tuple[UnitLayer, ...]:
    firsts = np.cumsum([0, *(n_units for _, n_units in layers)]).tolist()
    return tuple(UnitLayer(name, first, n) for (name, n), first in zip(layers, firsts, strict=False))


def _check_size(examples: Examples, layers: Sequence[UnitLayer], fewer: str) -> None:
    n_units = layers[-1].first + layers[-1].n_units
    n_bytes = 4 * len(examples.numbers) * n_units
    if n_bytes > MAX_RESPONSE_BYTES:
        raise InvalidSettings(
            f"{len(examples.numbers)} examples of {n_units} units are {n_bytes / 2**30:.0f} GiB of responses, at most "
            f"{MAX_RESPONSE_BYTES >> 30} are kept: take fewer examples {fewer}"
        )


def _searched(loaded: LoadedModel) -> Searched:
    def embed(words: Sequence[str]) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = encode_texts(loaded, words).double().cpu().numpy()
        return rows

    return Searched(loaded.info.weights_sha256, loaded.device.type, loaded.info.dtype, embed)
