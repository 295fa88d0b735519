"""Files of indexes, descriptions and searches for experts, opened once: they never change under their name."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fulcrum.datasets.description import ConceptDescription
from fulcrum.datasets.expert_table import ExpertTable
from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.index.opening import open_linked_index
from fulcrum.domain.records import DescriptionRecord, ExpertsRecord, IndexRecord
from fulcrum.store.artifacts import Artifacts

T = TypeVar("T")

_KEPT = 16  # of each kind; memory-mapped, so they cost addresses rather than memory


class ConceptFiles:
    """Safe to share between threads. Close it: links to the files lie in a temporary folder."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._descriptions: OrderedDict[str, ConceptDescription] = OrderedDict()
        self._indexes: OrderedDict[str, LatentIndex] = OrderedDict()
        self._experts: OrderedDict[str, ExpertTable] = OrderedDict()

    def description(self, record: DescriptionRecord) -> ConceptDescription:
        """Raises UnknownArtifact, CorruptArtifact, CorruptIndex."""
        return self._kept(
            self._descriptions,
            record.sha256,
            lambda: ConceptDescription.open(self._artifacts.local_path(record.sha256)),
        )

    def index(self, record: IndexRecord) -> LatentIndex:
        """Raises UnknownArtifact, CorruptArtifact, CorruptIndex."""

        def opened() -> LatentIndex:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fulcrum-indexes-")
            return open_linked_index(
                record.files, self._artifacts.local_path, Path(self._folder.name), record.key
            )

        return self._kept(self._indexes, record.key, opened)

    def experts(self, record: ExpertsRecord) -> ExpertTable:
        """Raises UnknownArtifact, CorruptArtifact, CorruptIndex."""
        return self._kept(
            self._experts,
            record.sha256,
            lambda: ExpertTable.open(self._artifacts.local_path(record.sha256)),
        )

    def close(self) -> None:
        """Removes the links."""
        with self._lock:
            self._descriptions.clear()
            self._indexes.clear()
            self._experts.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _kept(self, kept: OrderedDict[str, T], name: str, opened: Callable[[], T]) -> T:
        # Held while a file is checked, so that ten who ask for a new one do not check it ten times.
        with self._lock:
            if name not in kept:
                kept[name] = opened()
            kept.move_to_end(name)
            while len(kept) > _KEPT:
                kept.popitem(last=False)
            return kept[name]
