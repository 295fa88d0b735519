"""Sets of images that people chose from data sets."""

from typing import Any

from sqlalchemy import Connection, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownImageSet
from fulcrum.domain.records import ImageSetRecord
from fulcrum.store.columns import Base, checked
from fulcrum.store.registry import InProject, unique_while_alive
from fulcrum.store.repository import LivingRepository


class ImageSetRow(InProject, Base):
    """A set; which images are in it stands in an artifact."""

    __tablename__ = "image_sets"
    __table_args__ = (
        unique_while_alive("image_sets", "dataset_id", "name"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "dataset_id", "created_at"),
    )
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str]
    purpose: Mapped[str]
    sha256: Mapped[str]
    n_images: Mapped[int]
    note: Mapped[str]
    n_by_split: Mapped[dict[str, Any]]


class ImageSets(LivingRepository[ImageSetRecord]):
    """Sets; names are unique for a data set."""

    FIXED = LivingRepository.FIXED | {"dataset_id"}

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ImageSetRow, ImageSetRecord, UnknownImageSet, "image set")

    def find(self, id: str) -> ImageSetRecord | None:
        """The set, None where there is none of this id (any more)."""
        return self._one(self._table.c.id == checked("id", id))
