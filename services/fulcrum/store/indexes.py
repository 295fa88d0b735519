"""Indexes of data sets, and what they say about the latents of an SAE."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownDescription, UnknownIndex
from fulcrum.domain.records import DatasetRecord, DescriptionRecord, IndexRecord
from fulcrum.store.columns import Base, Kept, checked
from fulcrum.store.repository import Repository


class IndexRow(Kept, Base):
    """An index; never changed."""

    __tablename__ = "indexes"
    __table_args__ = (
        UniqueConstraint("dataset_id", "sae_id", "key"),
        Index(None, "project_id", "created_at", "id"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    sae_id: Mapped[str] = mapped_column(ForeignKey("saes.id"))
    key: Mapped[str]
    dataset_digest: Mapped[str]
    model_sha256: Mapped[str]
    sae_sha256: Mapped[str]
    n_images: Mapped[int]
    n_activations: Mapped[int]
    size_bytes: Mapped[int]
    files: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class DescriptionRow(Kept, Base):
    """A description; never changed."""

    __tablename__ = "descriptions"
    __table_args__ = (
        UniqueConstraint("index_id", "key"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "sae_id", "created_at", "id"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    sae_id: Mapped[str] = mapped_column(ForeignKey("saes.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    index_id: Mapped[str] = mapped_column(ForeignKey("indexes.id"))
    key: Mapped[str]
    sha256: Mapped[str]
    n_described: Mapped[int]
    n_labels: Mapped[int]
    size_bytes: Mapped[int]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Indexes(Repository[IndexRecord]):
    """Indexes; one of a key for a data set and an SAE."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, IndexRow, IndexRecord, UnknownIndex, "index")

    def by_key(self, dataset_id: str, sae_id: str, key: str) -> IndexRecord | None:
        """The index of this key, None if there is none."""
        c = self._table.c
        return self._one(
            c.dataset_id == checked("dataset_id", dataset_id),
            c.sae_id == checked("sae_id", sae_id),
            c.key == checked("key", key),
        )

    def current(self, dataset: DatasetRecord, sae_id: str) -> IndexRecord | None:
        """The newest index of the data set as it is now, None if it was not indexed since it changed."""
        if dataset.digest is None:
            return None
        page = self.list(dataset_id=dataset.id, sae_id=sae_id, dataset_digest=dataset.digest, limit=1)
        return page.items[0] if page.items else None

    def _describe(self, record: Any) -> str:
        return f"an index of data set {record.dataset_id} under SAE {record.sae_id}"


class Descriptions(Repository[DescriptionRecord]):
    """Descriptions; one of a key for an index."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, DescriptionRow, DescriptionRecord, UnknownDescription, "description")

    def by_key(self, index_id: str, key: str) -> DescriptionRecord | None:
        """The description of this key, None if there is none."""
        c = self._table.c
        return self._one(c.index_id == checked("index_id", index_id), c.key == checked("key", key))

    def newest(self, sae_id: str, dataset_id: str | None = None) -> DescriptionRecord | None:
        """The newest description of an SAE (from one data set), None if there is none."""
        page = self.list(sae_id=sae_id, dataset_id=dataset_id, limit=1)
        return page.items[0] if page.items else None

    def _describe(self, record: Any) -> str:
        return f"a description of SAE {record.sae_id}"
