"""Indexes as handlers reach them: the one of a data set as it is now, opened from its artifacts."""

from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.index.opening import open_linked_index
from fulcrum.domain.errors import UnknownDataset, UnknownIndex
from fulcrum.domain.records import IndexRecord
from fulcrum.worker.work import Work


def current_index(work: Work, dataset_id: str, sae_id: str) -> IndexRecord:
    """The newest index of the data set as it is now. Raises UnknownDataset, UnknownIndex."""
    with work.store.read() as tx:
        dataset = tx.datasets.get(dataset_id)
        if dataset.project_id != work.job.project_id:
            raise UnknownDataset(f"no data set with the id {dataset_id[:80]!r}")
        found = tx.indexes.current(dataset, sae_id)
    if found is None:
        raise UnknownIndex(
            f"the data set {dataset.name!r} as it is now has no index under SAE {sae_id}: index it first"
        )
    return found


def open_index(work: Work, record: IndexRecord) -> LatentIndex:
    """The index, from links in this machine's cache. Raises CorruptIndex, UnknownArtifact, CorruptArtifact."""
    return open_linked_index(record.files, work.artifacts.local_path, work.cache / "indexes", record.key)
