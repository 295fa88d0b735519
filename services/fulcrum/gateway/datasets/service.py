"""What happens to data sets."""

from fulcrum.domain.errors import Conflict, UnknownDataset
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import DatasetRecord, Page, Role
from fulcrum.domain.tasks import ClassSet
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.datasets.schemas import DatasetChange, NewDataset
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.reach import reach
from fulcrum.gateway.schemas import changes
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def find(asker: Asker, tx: Transaction, dataset_id: str, role: Role) -> DatasetRecord:
    """Raises UnknownDataset, Forbidden."""
    return reach(asker, tx, tx.datasets, dataset_id, role, UnknownDataset, "data set")


def make(store: Store, asker: Asker, body: NewDataset) -> DatasetRecord:
    """Raises AlreadyExists for a taken name, InvalidPrompt for class names that are no class set."""
    if body.class_names:
        ClassSet(tuple(body.class_names))
    with store.write() as tx:
        record = DatasetRecord(
            id=new_id("dat"),
            project_id=asker.project(tx, body.project_id, "analyst"),
            name=body.name,
            created_by=asker.user.id,
            created_at=now(),
            description=body.description,
            class_names=tuple(body.class_names),
        )
        tx.datasets.add(record)
        tx.audit.append(asker.user.id, "dataset.create", record.id, {"name": record.name})
    return record


def page(store: Store, asker: Asker, project_id: str | None, params: PageParams) -> Page[DatasetRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.datasets.list(project_id=project, limit=params.limit, cursor=params.cursor)


def get(store: Store, asker: Asker, dataset_id: str) -> DatasetRecord:
    """Raises UnknownDataset."""
    with store.read() as tx:
        return find(asker, tx, dataset_id, "viewer")


def change(
    store: Store, asker: Asker, dataset_id: str, body: DatasetChange, expected: int | None
) -> DatasetRecord:
    """Raises UnknownDataset, StaleVersion, AlreadyExists."""
    named = changes(body)
    with store.write() as tx:
        find(asker, tx, dataset_id, "analyst")
        record = tx.datasets.update(dataset_id, expected, **named)
        tx.audit.append(asker.user.id, "dataset.change", dataset_id, named)
    return record


def remove(store: Store, asker: Asker, dataset_id: str, expected: int | None) -> None:
    """Raises UnknownDataset, StaleVersion, and Conflict while images are imported into it."""
    with store.write() as tx:
        record = find(asker, tx, dataset_id, "analyst")
        if record.state == "importing":
            raise Conflict(f"images are being imported into the data set {record.name!r}: cancel that first")
        tx.datasets.delete(dataset_id, expected)
        tx.audit.append(asker.user.id, "dataset.delete", dataset_id, {"name": record.name})
