"""Registered data sets as handlers reach them."""

from fulcrum.datasets.samples import Dataset
from fulcrum.datasets.stored import read_manifest
from fulcrum.domain.errors import InvalidDataset, UnknownDataset
from fulcrum.domain.records import DatasetRecord
from fulcrum.worker.indexes import OpenDataset
from fulcrum.worker.work import Work

_HELD = 4


def record_of(work: Work, dataset_id: str) -> DatasetRecord:
    """The record. Raises UnknownDataset, also for one of another project."""
    with work.store.read() as tx:
        record = tx.datasets.get(dataset_id)
    if record.project_id != work.job.project_id:
        raise UnknownDataset(f"no data set with the id {dataset_id[:80]!r}")
    return record


def dataset_opener() -> OpenDataset:
    """Opens data sets, and holds the last few of its process: each shard of a job asks for the same one."""
    held: dict[str, Dataset] = {}

    def open_dataset(work: Work, dataset_id: str) -> Dataset:
        record = record_of(work, dataset_id)
        sha256 = record.manifest_sha256
        if record.state != "ready" or sha256 is None:
            raise InvalidDataset(
                f"the data set {record.name!r} is {record.state}: import images into it first"
            )
        dataset = held.pop(sha256, None)
        if dataset is None:
            dataset = read_manifest(work.artifacts.read_bytes(sha256), record.name, work.artifacts.read_bytes)
        held[sha256] = dataset
        while len(held) > _HELD:
            del held[next(iter(held))]
        return dataset

    return open_dataset
