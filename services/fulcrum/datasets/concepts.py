"""Concepts of images: which images of a data set are examples of what."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.browsing import column, columns
from fulcrum.datasets.samples import Dataset
from fulcrum.domain.concept_sets import MAX_CONCEPTS, ConceptSet, check_examples, check_names
from fulcrum.domain.errors import InvalidDataset, InvalidInput
from fulcrum.domain.jobs import FindExperts, ImageConcept, Where

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1  # as in `science.experts`
_FEWEST: Final = 5  # images of a column's value that is taken for a concept
_GROUP: Final = "group_"


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples in ascending order, and what they are to each concept. `left_out` are values with too few images."""

    numbers: NDArray[np.int64]  # of the images, or of the sentences of a set
    names: tuple[str, ...]
    domains: tuple[str, ...]
    labels: NDArray[np.int8]  # (n_concepts, n_examples): POSITIVE, NEGATIVE, UNUSED
    left_out: tuple[str, ...] = ()

    @property
    def n_pos(self) -> NDArray[np.int64]:
        """(n_concepts,)"""
        return np.asarray((self.labels == POSITIVE).sum(axis=1), dtype=np.int64)

    @property
    def n_neg(self) -> NDArray[np.int64]:
        """(n_concepts,)"""
        return np.asarray((self.labels == NEGATIVE).sum(axis=1), dtype=np.int64)

    @property
    def one_base_rate(self) -> bool:
        """Whether AP can be compared across the concepts."""
        return bool((self.n_pos * self.n_neg[0] == self.n_pos[0] * self.n_neg).all())


def image_examples(dataset: Dataset, spec: FindExperts) -> Examples:
    """The images that the question looks at.

    Raises InvalidDataset for a column or value that is not there, InvalidInput for a concept without examples of
    both kinds, with fewer than asked for, with a name that is taken, or for too many concepts.
    """
    looked_at = np.ones(len(dataset), dtype=bool)
    if spec.split is not None:
        looked_at = _chosen(dataset, [Where("split", spec.split)])
    looked_at &= _chosen(dataset, spec.among)
    named: list[tuple[str, str, NDArray[np.bool_], NDArray[np.bool_]]] = []
    left_out: list[str] = []
    for name in spec.columns:
        values = concept_column(dataset, name)
        plain = name.removeprefix(_GROUP)
        known = looked_at & (values != "")
        for value in sorted(set(values[known].tolist())):
            there = known & (values == value)
            shown = value if name == "label" else f"{plain}={value}"
            if there.sum() < max(_FEWEST, spec.n_pos or 0) or (known & ~there).sum() < (spec.n_neg or 1):
                left_out.append(shown)
                continue
            named.append((shown, plain, there, known & ~there))
    for concept in spec.concepts:
        named.append((concept.name, concept.domain, *_of_concept(dataset, concept, looked_at)))
    if not 1 <= len(named) <= MAX_CONCEPTS:
        raise InvalidInput(
            f"{len(named)} concepts (columns {list(spec.columns)}, {len(spec.concepts)} by name): 1 to {MAX_CONCEPTS} "
            "are allowed; a column is a concept for each of its values, and "
            f"{len(left_out)} values have fewer images than are needed or asked for"
        )
    check_names([n for n, *_ in named])
    labels = np.full((len(named), len(dataset)), UNUSED, dtype=np.int8)
    for row, (name, _, positive, negative) in zip(labels, named, strict=True):
        row[_drawn(positive, spec.n_pos, name, "positive", spec.seed)] = POSITIVE
        row[_drawn(negative, spec.n_neg, name, "negative", spec.seed)] = NEGATIVE
        check_examples(name, int((row == POSITIVE).sum()), int((row == NEGATIVE).sum()))
    numbers = np.flatnonzero((labels != UNUSED).any(axis=0)).astype(np.int64)
    return Examples(
        numbers, tuple(n for n, *_ in named), tuple(d for _, d, *_ in named), labels[:, numbers], tuple(left_out)
    )  # fmt: skip


def sentence_examples(concepts: ConceptSet) -> Examples:
    """The sentences of a set that a concept uses."""
    labels = np.full((len(concepts.concepts), len(concepts.sentences)), UNUSED, dtype=np.int8)
    for row, concept in zip(labels, concepts.concepts, strict=True):
        row[list(concept.positives)] = POSITIVE
        row[list(concept.negatives)] = NEGATIVE
    numbers = np.flatnonzero((labels != UNUSED).any(axis=0)).astype(np.int64)
    names = tuple(c.name for c in concepts.concepts)
    return Examples(numbers, names, tuple(c.domain for c in concepts.concepts), labels[:, numbers])


def concept_column(dataset: Dataset, name: str) -> NDArray[np.str_]:
    """(n,) texts, "" where there is none: what can be browsed, or a further column of the manifest.

    Raises InvalidDataset, naming what there is.
    """
    further = sorted({key for sample in dataset.samples for key in sample.metadata})
    if name in further:
        return np.array([s.metadata.get(name, "") for s in dataset.samples], dtype=np.str_)
    try:
        return column(dataset, name)
    except InvalidDataset:
        raise InvalidDataset(
            f"no column {name[:80]!r} in {dataset.name!r}: it has {[*columns(dataset), *further][:60]}"
        ) from None


def _of_concept(
    dataset: Dataset, concept: ImageConcept, looked_at: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if not concept.where:
        raise InvalidInput(f"concept {concept.name!r} has no condition: which images are about it?")
    positive = _chosen(dataset, concept.where)
    negative = _chosen(dataset, concept.against) & ~positive if concept.against else ~positive
    if not (positive & looked_at).any():
        wanted = " and ".join(f"{w.column}={w.value}" for w in concept.where)
        raise InvalidInput(f"concept {concept.name!r}: no image of {dataset.name!r} fulfils {wanted}")
    return positive & looked_at, negative & looked_at


def _chosen(dataset: Dataset, where: Sequence[Where]) -> NDArray[np.bool_]:
    keep = np.ones(len(dataset), dtype=bool)
    for condition in where:
        values = concept_column(dataset, condition.column)
        if condition.value not in set(values.tolist()):
            raise InvalidDataset(
                f"no image of {dataset.name!r} has {condition.column} {condition.value[:80]!r}: there is "
                f"{sorted(set(values.tolist()))[:20]}"
            )
        keep &= values == condition.value
    return keep


def _drawn(mask: NDArray[np.bool_], n: int | None, name: str, what: str, seed: int) -> NDArray[np.int64]:
    numbers = np.flatnonzero(mask).astype(np.int64)
    if n is None:
        return numbers
    if len(numbers) < n:
        raise InvalidInput(f"concept {name!r} has {len(numbers)} {what} images, {n} are asked for")
    # By name, so that a concept has the same examples whatever others stand beside it.
    rng = np.random.default_rng([seed, zlib.crc32(f"{what}:{name}".encode())])
    return np.sort(rng.choice(numbers, n, replace=False))
