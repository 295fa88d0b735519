"""What the latents of an SAE stand for by one index, as one file that is read memory-mapped and without any model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.array_file import ArrayFile, open_array_file, write_array_file
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.errors import CorruptIndex, InvalidRequest, LatentOutOfRange

Array = NDArray[Any]
KIND: Final = "description"
VERSION: Final = 1
NONE: Final = -1  # in columns of numbers: no such latent, image or label

# Columns (n, ...) over the described latents, which are those that fire at least once.
COLUMNS: Final = frozenset(
    {
        "latents",  # ascending
        "n_images_active",
        "n_tokens_active",
        "max",
        "mean",  # over all tokens
        "mean_active",
        "p99",
        "histogram",  # (n, 128) of `LatentStatistics`
        "top_max_images",  # (n, n_top), best first, then NONE
        "top_max_values",
        "top_mean_images",
        "top_mean_values",
        "class_counts",  # (n, n_classes) among the top images by maximum that have a label
        "dominant_p",  # nan without a labelled top image
        "labels",  # (n, n_best) numbers in the vocabulary, best first, then NONE
        "label_scores",
        "label_margins",
        "clarity",  # nan where there are too few top images, as in the next three
        "polysemanticity",
        "redundancy",
        "redundant_with",  # latent
        "cofiring",  # (n, n_neighbours) latents, best first, then NONE
        "cofiring_scores",
        "cofiring_joint",  # images where both fire
        "decoder",
        "decoder_scores",
        "embeddings",  # (n, d_embed) mean of the unit embeddings of the top images; zeros where too few
        "places",  # (n, 2) on the map; nan where there is no embedding
    }
)


@dataclass(frozen=True)
class DescribedIn:
    """What the numbers were found in. Resizing and grid say where a token lies in an image."""

    index_key: str
    n_images: int
    n_tokens: int  # of an image
    d_sae: int
    has_cls: bool
    grid: tuple[int, int]
    image_size: tuple[int, int]  # (height, width)
    resize_mode: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]  # images of each class in the data set
    templates: tuple[str, ...]


class ConceptDescription:
    """Columns by name; row i is about `latents[i]`. Nothing is read before it is asked for."""

    def __init__(self, file: ArrayFile) -> None:
        """Raises CorruptIndex for a file of another version or without a column."""
        if file.meta.get("version") != VERSION or not set(file.arrays) >= COLUMNS:
            raise CorruptIndex(f"{file.path.name} is no description of version {VERSION}")
        self._file = file
        try:
            self.found_in = from_json(DescribedIn, file.meta.get("found_in"), "found_in")
        except InvalidRequest as error:
            raise CorruptIndex(f"{file.path.name}: {error}") from error

    @classmethod
    def open(cls, path: Path) -> "ConceptDescription":
        """Raises CorruptIndex."""
        return cls(open_array_file(path, KIND))

    def __getitem__(self, column: str) -> Array:
        """One of COLUMNS."""
        return self._file.arrays[column]

    def __len__(self) -> int:
        return len(self["latents"])

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that latents could be called."""
        return tuple(json.loads(self._file.arrays["vocabulary"].tobytes()))

    @cached_property
    def has_embedding(self) -> NDArray[np.bool_]:
        """(n,) whether there were top images enough for an embedding."""
        return np.isfinite(self["places"][:, 0])

    def row(self, latent: int) -> int | None:
        """The latent's row, None for one that never fires. Raises LatentOutOfRange."""
        if not 0 <= latent < self.found_in.d_sae:
            raise LatentOutOfRange(
                f"latent {latent} is outside of 0 .. {self.found_in.d_sae - 1}, the latents of this SAE"
            )
        latents = self["latents"]
        row = int(np.searchsorted(latents, latent))
        return row if row < len(latents) and latents[row] == latent else None

    def label(self, row: int) -> str | None:
        """The best label, None where none could be found."""
        number = int(self["labels"][row, 0]) if self["labels"].shape[1] else NONE
        return None if number == NONE else self.vocabulary[number]


def write_description(
    path: Path, columns: Mapping[str, Array], vocabulary: tuple[str, ...], found_in: DescribedIn
) -> None:
    """The same columns give the same bytes."""
    assert set(columns) == COLUMNS, set(columns) ^ COLUMNS
    words = np.frombuffer(json.dumps(vocabulary).encode(), dtype=np.uint8)
    meta = {"version": VERSION, "found_in": to_json(found_in)}
    write_array_file(path, KIND, {**columns, "vocabulary": words}, meta)
