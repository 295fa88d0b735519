"""A data set in memory: samples with their labels, groups and splits; bytes are read on demand."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.byte_sources import ByteHashes, ByteSource, FileSource
from fulcrum.domain.errors import (
    DatasetWithoutLabels,
    InvalidDataset,
    SingleClassDataset,
    UnknownDataset,
)

_SHOWN = 5  # how many offending names a message lists


@dataclass(frozen=True)
class Sample:
    """One image. `source` is understood by the data set's byte source (a relative path in most formats).

    Absent values are None (`label`, `split`, ...) or missing keys (`groups`, `covariates`). `metadata` keeps
    columns that have no meaning here.
    """

    id: str
    source: str
    label: str | None = None
    split: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    covariates: Mapping[str, float] = field(default_factory=dict, hash=False)
    pair_id: str | None = None
    mask_path: str | None = None
    licence: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Dataset:
    """Samples in ascending order of their id; an image's *number* is its position in `samples`.

    The order is part of the contract: an index stores numbers and is found by the digest, which does not know
    in which order a manifest lists its rows. Build with `Dataset.create`. `duplicates` names the cluster of each
    image that has duplicates, where an import has looked for them.
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    hashes: ByteHashes
    duplicates: Mapping[str, str] = field(default_factory=dict, hash=False)  # id -> cluster

    @classmethod
    def create(
        cls,
        name: str,
        root: Path,
        samples: Iterable[Sample],
        *,
        byte_source: ByteSource | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "Dataset":
        """Sorts and checks.

        Raises InvalidDataset for no samples, blank or repeated ids, labels outside `class_names`.

        `class_names` None: the labels that occur, sorted.
        """
        ordered = tuple(sorted(samples, key=lambda s: s.id))
        if not ordered:
            raise InvalidDataset(f"data set {name!r} is empty: no image found")
        if not ordered[0].id.strip():
            raise InvalidDataset(f"data set {name!r} has a blank id (source {ordered[0].source!r})")
        doubles = sorted({a.id for a, b in pairwise(ordered) if a.id == b.id})
        if doubles:
            raise InvalidDataset(
                f"ids must differ; {len(doubles)} occur more than once in {name!r}, first: {doubles[:_SHOWN]}"
            )
        for sample in ordered:
            if sample.label is not None and not sample.label.strip():
                raise InvalidDataset(f"label of {sample.id!r} is blank: leave it out where there is none")
        labels = {s.label for s in ordered if s.label is not None}
        names = tuple(sorted(labels)) if class_names is None else tuple(class_names)
        strangers = sorted(labels - set(names))
        if strangers:
            raise InvalidDataset(f"labels {strangers[:_SHOWN]} of {name!r} are not among its class names")
        if len(set(names)) != len(names):
            raise InvalidDataset(f"class names of {name!r} must differ, got {list(names)[:20]}")
        return cls(name, root, ordered, names, ByteHashes(byte_source or FileSource(root)))

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def digest(self) -> str:
        """sha256 over sorted (id, sha256(bytes), label, groups, split); reads every image once."""
        content = hashlib.sha256()
        for sample, sha256 in zip(self.samples, self.bytes_sha256, strict=True):
            row = [sample.id, sha256, sample.label, dict(sample.groups), sample.split]
            content.update(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
            content.update(b"\n")
        return content.hexdigest()

    @cached_property
    def bytes_sha256(self) -> tuple[str, ...]:
        """sha256 of each image's bytes."""
        return tuple(self.hashes.sha256_of([s.source for s in self.samples]))

    def read_bytes(self, sample: Sample) -> bytes:
        """The encoded image. Raises MissingFiles when the file is gone."""
        return self.hashes.byte_source.read(sample.source)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """(n,)"""
        return np.array([s.id for s in self.samples], dtype=np.str_)

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """(n,), "" where there is none."""
        return np.array([s.label or "" for s in self.samples], dtype=np.str_)

    @cached_property
    def label_numbers(self) -> NDArray[np.int64]:
        """(n,) positions in `class_names`, -1 where there is no label."""
        number = {name: i for i, name in enumerate(self.class_names)}
        return np.array([-1 if s.label is None else number[s.label] for s in self.samples], dtype=np.int64)

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """(n,), "" where there is none."""
        return np.array([s.split or "" for s in self.samples], dtype=np.str_)

    @cached_property
    def pair_ids(self) -> NDArray[np.str_]:
        """(n,), "" where there is none."""
        return np.array([s.pair_id or "" for s in self.samples], dtype=np.str_)

    @cached_property
    def split_names(self) -> tuple[str, ...]:
        """Splits that occur, sorted."""
        return tuple(sorted({s.split for s in self.samples if s.split is not None}))

    @cached_property
    def groups(self) -> dict[str, NDArray[np.str_]]:
        """Group name to its column (n,), "" where a sample has no value."""
        names = sorted({name for s in self.samples for name in s.groups})
        return {g: np.array([s.groups.get(g, "") for s in self.samples], dtype=np.str_) for g in names}

    @cached_property
    def covariates(self) -> dict[str, NDArray[np.float64]]:
        """Covariate name to its column (n,), nan where a sample has no value."""
        names = sorted({name for s in self.samples for name in s.covariates})
        return {
            c: np.array([s.covariates.get(c, np.nan) for s in self.samples], dtype=np.float64) for c in names
        }

    def covariate_bins(self, name: str, n_bins: int = 4) -> NDArray[np.str_]:
        """A covariate as a group column: "q1" (lowest) to "q<n_bins>" by quantile, "" where it is absent.

        Equal values share a bin, so fewer bins may come out. Raises InvalidDataset for an unknown covariate.
        """
        if name not in self.covariates:
            raise InvalidDataset(f"no covariate {name!r} in {self.name!r}: it has {sorted(self.covariates)}")
        if n_bins < 2:
            raise InvalidDataset(f"n_bins must be >= 2, got {n_bins}")
        column = self.covariates[name]
        known = np.isfinite(column)
        edges = np.quantile(column[known], np.arange(1, n_bins) / n_bins)
        bins = np.searchsorted(edges, column, side="left")
        return np.array([f"q{b + 1}" if k else "" for b, k in zip(bins, known, strict=True)], dtype=np.str_)

    def numbers(
        self, *, split: str | None = None, label: str | None = None, **groups: str
    ) -> NDArray[np.int64]:
        """Numbers of the images that match everything given: `numbers(split="confirm", sticker="word")`.

        Raises InvalidDataset for a split, label or group that does not occur. Empty when each occurs,
        but never together.
        """
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= self._matches("split", self.splits, split)
        if label is not None:
            keep &= self._matches("label", self.labels, label)
        for name, value in groups.items():
            if name not in self.groups:
                raise InvalidDataset(f"no group {name!r} in {self.name!r}: it has {sorted(self.groups)}")
            keep &= self._matches(f"group {name}", self.groups[name], value)
        return np.flatnonzero(keep).astype(np.int64)

    def _matches(self, what: str, column: NDArray[np.str_], value: str) -> NDArray[np.bool_]:
        matches: NDArray[np.bool_] = column == value
        if not matches.any():
            there = sorted(set(column.tolist()) - {""})
            raise InvalidDataset(f"no image of {self.name!r} has {what} {value!r}: there is {there[:20]}")
        return matches

    def split(self, name: str) -> "Dataset":
        """The images of one split, with the class names of the whole; InvalidDataset for an unknown split."""
        return self.subset(self.numbers(split=name))

    def where(self, *, label: str | None = None, **groups: str) -> "Dataset":
        """The images that match, as a data set; InvalidDataset when nothing does."""
        return self.subset(self.numbers(label=label, **groups))

    def subset(self, numbers: Sequence[int] | NDArray[np.integer[Any]]) -> "Dataset":
        """Chosen images, in ascending order of their number; known hashes are shared."""
        chosen = np.unique(np.asarray(numbers, dtype=np.int64))
        if chosen.size == 0:
            raise InvalidDataset(f"an empty selection of {self.name!r} is no data set")
        if chosen[0] < 0 or chosen[-1] >= len(self):
            raise InvalidDataset(f"numbers must be 0 .. {len(self) - 1}, got {chosen[0]} .. {chosen[-1]}")
        return Dataset(
            self.name,
            self.root,
            tuple(self.samples[i] for i in chosen),
            self.class_names,
            self.hashes,
            self.duplicates,
        )

    def with_samples(self, samples: Iterable[Sample]) -> "Dataset":
        """The same images with other columns (splits assigned, labels corrected)."""
        changed = Dataset.create(self.name, self.root, samples, class_names=self.class_names)
        return Dataset(self.name, self.root, changed.samples, self.class_names, self.hashes, self.duplicates)

    def number(self, sample_id: str) -> int:
        """Number of the image with this id. Raises UnknownDataset when there is none."""
        if sample_id not in self._by_id:
            raise UnknownDataset(f"no image {sample_id!r} in {self.name!r} ({len(self)} images)")
        return self._by_id[sample_id]

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {s.id: i for i, s in enumerate(self.samples)}

    def require_labels(self) -> None:
        """Raises DatasetWithoutLabels when an image has none, naming the first."""
        missing = [s.id for s in self.samples if s.label is None]
        if missing:
            raise DatasetWithoutLabels(
                f"this needs a label for every image: {len(missing)} of {len(self)} in {self.name!r} have "
                f"none, first: {missing[:_SHOWN]}"
            )

    def require_classes(self, n_classes: int = 2) -> None:
        """Raises DatasetWithoutLabels, or SingleClassDataset when fewer than `n_classes` occur."""
        self.require_labels()
        present = sorted({s.label for s in self.samples if s.label is not None})
        if len(present) < n_classes:
            raise SingleClassDataset(
                f"this compares classes and needs at least {n_classes}: {self.name!r} has {present}"
            )
