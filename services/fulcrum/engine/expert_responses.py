"""What units answer to examples: parts of a search for experts, each one file that is kept under all that determines
it, so that another search over the same images or sentences runs no forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.datasets.index.array_file import write_array_file
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import Conflict
from fulcrum.domain.jobs import TokenPool, content_key
from fulcrum.domain.models import ModelRef
from fulcrum.engine.dataset_runs import embeddings_of, prefix_of
from fulcrum.engine.image_batches import image_batches
from fulcrum.engine.language_models import LanguageModelInfo, LanguageSource
from fulcrum.engine.residency import Residency, Steerable
from fulcrum.science.responses.clip import (
    TowerLayer,
    image_responses,
    looked_at_in_images,
    text_responses_of,
)
from fulcrum.science.responses.text import responses_and_embeddings
from fulcrum.science.vision.loaded import LoadedModel

VERSION: Final = 2  # of the numbers in a part
KIND: Final = "responses"
DENSE, EMBEDDINGS = "responses", "embeddings"

_PIECES: Final = ((8_192, 256), (65_536, 1_024))
_LARGEST_PIECE: Final = 4_096
_TEXTS_AT_ONCE: Final = 64

Numbers = NDArray[np.int64]
Advance = Callable[[int], None]


def piece_size(n_examples: int) -> int:
    """Examples of a part."""
    return next((size for up_to, size in _PIECES if n_examples <= up_to), _LARGEST_PIECE)


def random_twin(ref: ModelRef, seed: int) -> ModelRef:
    """The same architecture with random weights, and other ones than a model that is random itself."""
    return ModelRef(ref.model_name, None, random_weights=True, seed=ref.seed + 1 + seed)


def random_twin_of_latents(residency: Residency, steerable: Steerable, twin: ModelRef) -> Steerable:
    """An untrained SAE of the same shape at the same place of the model with random weights."""
    config = steerable.sae.config
    k = int(config.options.get("k", 1))
    name = f"untrained:{config.variant}:{config.d_sae}:{k}@{steerable.sae_info.hook_point}"
    return residency.steerable(twin, name)


def model_key(loaded: LoadedModel) -> dict[str, Any]:
    """What the answers of a model depend on besides the example."""
    info = loaded.info
    return {
        "version": VERSION,
        "model_sha256": info.weights_sha256,
        "preprocess_sha256": info.preprocess_sha256,
        "device_type": loaded.device.type,
        "dtype": info.dtype,
    }


@dataclass(frozen=True)
class ImagePart:
    """Dense responses of a tower's units to some images of a data set."""

    loaded: LoadedModel
    layers: tuple[TowerLayer, ...]
    dataset: Dataset
    tokens: TokenPool

    def key(self, numbers: Numbers) -> str:
        """Of one part."""
        return content_key(
            what="image responses",
            model=model_key(self.loaded),
            layers=[layer.name for layer in self.layers],
            tokens=self.tokens,
            images=[self.dataset.bytes_sha256[n] for n in numbers],
        )

    def write(self, path: Path, numbers: Numbers, advance: Advance) -> None:
        """Raises UnreadableImage, MissingFiles, ComputationFailed."""
        looked_at = looked_at_in_images(self.loaded, self.tokens)
        responses, embeddings, done = [], [], 0
        for batch in image_batches(self.loaded, self.dataset, numbers):
            found, embedded = image_responses(self.loaded, self.layers, batch.pixels, looked_at)
            n = len(batch.numbers)
            responses.append(found[:n].cpu().numpy())
            embeddings.append(_unit(embedded[:n]))
            done += n
            advance(done)
        _write_dense(path, responses, embeddings)


@dataclass(frozen=True)
class TextPart:
    """Dense responses of the text tower's units to sentences; ids are those of `speaks`, whoever reads them.

    A random twin may have no tokenizer of its own.
    """

    loaded: LoadedModel
    speaks: LoadedModel
    layers: tuple[TowerLayer, ...]
    sentences: tuple[str, ...]

    def key(self, numbers: Numbers) -> str:
        """Of one part."""
        return content_key(
            what="text responses",
            model=model_key(self.loaded),
            tokenizer=self.speaks.info.weights_sha256,
            layers=[layer.name for layer in self.layers],
            sentences=[self.sentences[n] for n in numbers],
        )

    def write(self, path: Path, numbers: Numbers, advance: Advance) -> None:
        """Raises InvalidPrompt for a sentence that is too long, ComputationFailed."""
        responses, embeddings, done = [], [], 0
        texts = [self.sentences[n] for n in numbers]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[start : start + _TEXTS_AT_ONCE]
            # One size, as for images: the same sentence has the same bits in whatever part it stands.
            full = [*some, *some[-1:] * (_TEXTS_AT_ONCE - len(some))]
            tokenizer = self.speaks.tokenizer
            found, embedded = text_responses_of(
                self.loaded, self.layers, tokenizer(full), tokenizer.words(full)
            )
            responses.append(found[: len(some)].cpu().numpy())
            embeddings.append(_unit(embedded[: len(some)]))
            done += len(some)
            advance(done)
        _write_dense(path, responses, embeddings)


@dataclass(frozen=True)
class LanguagePart:
    """Dense responses of a language model's linear layers to sentences.

    It is loaded when something is computed: a search holds two of them, and memory is for one.
    """

    residency: Residency
    source: LanguageSource
    layers: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def info(self) -> LanguageModelInfo:
        """Loads it where it never was."""
        return self.residency.language_info(self.source)

    def key(self, numbers: Numbers) -> str:
        """Of one part."""
        info = self.info
        return content_key(
            what="language model responses",
            version=VERSION,
            model_sha256=info.weights_sha256,
            tokenizer=info.tokenizer_sha256,
            device_type=info.device_type,
            dtype=info.dtype,
            layers=list(self.layers),
            sentences=[self.sentences[n] for n in numbers],
        )

    def write(self, path: Path, numbers: Numbers, advance: Advance) -> None:
        """Raises InvalidInput for a sentence that is too long, ComputationFailed, Conflict for other weights."""
        known = self.info
        loaded = self.residency.language_model(self.source)
        if loaded.info != known:
            raise Conflict(f"the weights of {self.source.called!r} have changed meanwhile: start again")
        texts = [self.sentences[n] for n in numbers]
        responses, embeddings = responses_and_embeddings(loaded.text, texts, self.layers, advance=advance)
        _write_dense(path, [responses.T], [_unit(torch.from_numpy(embeddings))])


@dataclass(frozen=True)
class LatentPart:
    """Image maxima of an SAE's latents, those that are not zero."""

    steerable: Steerable
    dataset: Dataset
    tokens: TokenPool

    def key(self, numbers: Numbers) -> str:
        """Of one part."""
        return content_key(
            what="latent responses",
            model=model_key(self.steerable.loaded),
            sae_sha256=self.steerable.sae_info.weights_sha256,
            hook_point=str(self.steerable.sae_info.hook_point),
            tokens=self.tokens,
            images=[self.dataset.bytes_sha256[n] for n in numbers],
        )

    def write(self, path: Path, numbers: Numbers, advance: Advance) -> None:
        """Raises UnreadableImage, MissingFiles."""
        steerable = self.steerable
        looked_at = looked_at_in_images(steerable.loaded, self.tokens).nonzero().flatten().numpy()
        n_tokens, d_sae = steerable.tower.n_tokens, steerable.sae.config.d_sae
        latents, examples, values, embeddings, done = [], [], [], [], 0
        for batch in image_batches(steerable.loaded, self.dataset, numbers):
            state = prefix_of(steerable, batch)
            sparse = steerable.sae.encode_sparse(state.x.to(steerable.sae.W_dec.dtype).flatten(0, 1))
            offsets = sparse.offsets.cpu().numpy()
            token = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
            keep = np.isin(token % n_tokens, looked_at)
            place = (token // n_tokens * d_sae + sparse.latents.cpu().numpy())[keep]
            found, inverse = np.unique(place, return_inverse=True)
            largest = np.zeros(len(found), dtype=np.float32)
            np.maximum.at(largest, inverse, sparse.values.float().cpu().numpy()[keep])
            latents.append(found % d_sae)
            examples.append(done + found // d_sae)
            values.append(largest)
            embeddings.append(_unit(embeddings_of(steerable, state).float()))
            done += len(batch.numbers)
            advance(done)
        write_array_file(
            path,
            KIND,
            {
                "latents": np.concatenate(latents).astype(np.int64),
                "examples": np.concatenate(examples).astype(np.int64),
                "values": np.concatenate(values),
                EMBEDDINGS: np.concatenate(embeddings),
            },
            {"n_examples": done},
        )


Part = ImagePart | TextPart | LanguagePart | LatentPart


def scope_of(tokens: TokenPool) -> Scope:
    """The same choice of tokens as an index has it."""
    return Scope(tokens)


def _unit(embeddings: torch.Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
    return unit


def _write_dense(
    path: Path, responses: Sequence[NDArray[np.float32]], embeddings: Sequence[NDArray[np.float32]]
) -> None:
    """Responses (n_units, n_examples): a layer is read as one stretch."""
    together = np.ascontiguousarray(np.concatenate(responses).T)
    arrays = {DENSE: together, EMBEDDINGS: np.concatenate(embeddings)}
    write_array_file(path, KIND, arrays, {"n_examples": together.shape[1]})
