"""Indexes as handlers reach them: the one of a data set as it is now, opened from its artifacts."""

from typing import TYPE_CHECKING, Protocol

from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.index.opening import open_linked_index
from fulcrum.domain.errors import UnknownDataset, UnknownIndex
from fulcrum.domain.records import IndexRecord
from fulcrum.domain.tasks import ClassSet
from fulcrum.worker.questions import OpenRun
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.datasets.samples import Dataset
    from fulcrum.engine.dataset_runs import DatasetRun


_MOST_RUNS = 2
_ACTIVATIONS_BYTES = 1 << 29  # of each


class OpenDataset(Protocol):
    """The images of a registered data set, as it is now."""

    def __call__(self, work: Work, dataset_id: str) -> "Dataset":
        """Raises UnknownDataset, also for one of another project, and InvalidDataset where nothing was imported."""
        ...


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


def open_runs(open_dataset: OpenDataset) -> OpenRun:
    """What validations stand on: a data set, its index and its class set, opened by what opens data sets."""
    # The runs of the last questions of this process: parts of one job share activations, so that eleven gains need one
    # prefix. Everything is looked up anew each time, and only what is still the same is taken from here.
    held: dict[tuple[str, str, str, ClassSet], DatasetRun] = {}

    def open_run(work: Work, dataset_id: str, sae_id: str, task: ClassSet | None) -> "DatasetRun":
        from fulcrum.engine.dataset_runs import DatasetRun

        model, source = work.sae(sae_id)
        dataset = open_dataset(work, dataset_id)
        record = current_index(work, dataset_id, sae_id)
        task = task or ClassSet(dataset.class_names)
        residency = work.engine.residency
        steerable = residency.steerable(model, source)
        key = (record.id, dataset.digest, steerable.sae_info.weights_sha256, task)
        run = held.pop(key, None)
        if run is None or run.steerable.loaded is not steerable.loaded:
            head, index = residency.head(model, task), open_index(work, record)
            run = DatasetRun(steerable, head, task, dataset, index, _ACTIVATIONS_BYTES)
        held[key] = run
        while len(held) > _MOST_RUNS:
            del held[next(iter(held))]
        return run

    return open_run
