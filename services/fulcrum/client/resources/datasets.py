"""Data sets: the records; images are imported by a job."""

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.records import DatasetRecord


class Datasets(Bound[Side]):
    """`client.datasets`: the records; images are imported by a job."""

    @operation
    def create(
        self, name: str, *, description: str = "", class_names: tuple[str, ...] = ()
    ) -> Flow[DatasetRecord]:
        """An empty data set. Raises AlreadyExists."""
        body = given(
            name=name,
            description=description,
            class_names=list(class_names),
            project_id=self._wire.project_id,
        )
        return (yield from self._wire.ask(DatasetRecord, "POST", path("datasets"), json=body))

    @operation
    def get(self, dataset: Identified | str) -> Flow[DatasetRecord]:
        """One data set. Raises UnknownDataset."""
        return (yield from self._wire.ask(DatasetRecord, "GET", path("datasets", id_of(dataset))))

    @listing(DatasetRecord)
    def list(self) -> Flow[None]:
        """All data sets of the project, newest first."""
        yield from self._wire.pages(DatasetRecord, path("datasets"), given(project_id=self._wire.project_id))

    @operation
    def update(
        self, dataset: Versioned | str, *, name: str | None = None, description: str | None = None
    ) -> Flow[DatasetRecord]:
        """The data set with other words. Raises StaleVersion."""
        where, body = path("datasets", id_of(dataset)), given(name=name, description=description)
        return (
            yield from self._wire.ask(
                DatasetRecord, "PATCH", where, json=body, if_match=precondition(dataset)
            )
        )

    @operation
    def delete(self, dataset: Versioned | str) -> Flow[None]:
        """Takes the data set out of the project."""
        yield from self._wire.do("DELETE", path("datasets", id_of(dataset)), if_match=precondition(dataset))

    @operation
    def import_images(
        self,
        dataset: Identified | str,
        source: str,
        *,
        format: str | None = None,
        new_splits: bool = False,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Imports images of `folder:NAME/sub`, below a folder allowed for workers, as a job: see `client.jobs.wait`."""
        body = given(source=source, format=format, new_splits=new_splits, seed=seed)
        where = path("datasets", f"{id_of(dataset)}:import")
        return (yield from self._wire.ask(JobRecord, "POST", where, json=body))
