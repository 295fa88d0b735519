"""What a project works with: models, SAEs, images, data sets."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from fulcrum.domain.errors import UnknownDataset, UnknownImage, UnknownModel, UnknownSae
from fulcrum.domain.records import DatasetRecord, DatasetVersion, ImageRecord, ModelRecord, SaeRecord
from fulcrum.store.columns import Base, Kept, Living, checked
from fulcrum.store.repository import LivingRepository, Repository

_ALIVE = text("deleted_at IS NULL")


class InProject(Living):
    """Columns of what belongs to a project and was made by somebody."""

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


def unique_while_alive(table: str, *columns: str) -> Index:
    """An index that leaves deleted rows out, so that their names are free."""
    name = f"uq_{table}_{'_'.join(columns)}"
    return Index(name, *columns, unique=True, sqlite_where=_ALIVE, postgresql_where=_ALIVE)


class ModelRow(InProject, Base):
    """A registered model."""

    __tablename__ = "models"
    __table_args__ = (
        unique_while_alive("models", "project_id", "name"),
        Index(None, "project_id", "created_at", "id"),
    )
    name: Mapped[str]
    ref: Mapped[dict[str, Any]]
    state: Mapped[str]
    info: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]


class SaeRow(InProject, Base):
    """A registered SAE."""

    __tablename__ = "saes"
    __table_args__ = (
        unique_while_alive("saes", "project_id", "name"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "model_id"),
    )
    name: Mapped[str]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    source: Mapped[str]
    state: Mapped[str]
    info: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    job_id: Mapped[str | None]


class ImageRow(InProject, Base):
    """An uploaded image."""

    __tablename__ = "images"
    __table_args__ = (
        unique_while_alive("images", "project_id", "sha256"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "sha256"),
    )
    sha256: Mapped[str]
    media_type: Mapped[str]
    size_bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    filename: Mapped[str]


class DatasetRow(InProject, Base):
    """A data set."""

    __tablename__ = "datasets"
    __table_args__ = (
        unique_while_alive("datasets", "project_id", "name"),
        Index(None, "project_id", "created_at", "id"),
    )
    name: Mapped[str]
    description: Mapped[str]
    state: Mapped[str]
    digest: Mapped[str | None]
    n_images: Mapped[int]
    class_names: Mapped[list[Any]]
    n_by_split: Mapped[dict[str, Any]]
    manifest_sha256: Mapped[str | None]
    report_sha256: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(server_default="0")


class DatasetVersionRow(Kept, Base):
    """A content of a data set; never changed, never deleted. A job that is tried again made one."""

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("job_id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "dataset_id", "digest"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    digest: Mapped[str]
    manifest_sha256: Mapped[str]
    report_sha256: Mapped[str]
    n_images: Mapped[int]
    size_bytes: Mapped[int]
    n_by_split: Mapped[dict[str, Any]]
    job_id: Mapped[str]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))


class Models(LivingRepository[ModelRecord]):
    """Models; names are unique in a project."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ModelRow, ModelRecord, UnknownModel, "model")


class Saes(LivingRepository[SaeRecord]):
    """SAEs; names are unique in a project."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, SaeRow, SaeRecord, UnknownSae, "SAE")

    def find(self, id: str) -> SaeRecord | None:
        """The SAE, None if there is none of this id."""
        return self._one(self._table.c.id == checked("id", id))

    def named(self, project_id: str, name: str) -> SaeRecord | None:
        """The project's SAE of this name, None if there is none."""
        c = self._table.c
        return self._one(c.project_id == checked("project_id", project_id), c.name == checked("name", name))

    def of_source(self, model_id: str, source: str) -> SaeRecord | None:
        """An SAE of the model with this source, None if there is none."""
        c = self._table.c
        return self._one(c.model_id == checked("model_id", model_id), c.source == checked("source", source))


class Images(LivingRepository[ImageRecord]):
    """Images; the same bytes are one image of a project."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, ImageRow, ImageRecord, UnknownImage, "image")

    def by_sha256(self, project_id: str, sha256: str) -> ImageRecord | None:
        """The project's image of this content, None if there is none."""
        c = self._table.c
        return self._one(
            c.project_id == checked("project_id", project_id), c.sha256 == checked("sha256", sha256)
        )

    def contents_among(self, hashes: Collection[str]) -> set[str]:
        """Those that an image has or had, of whatever project."""
        c = self._table.c
        return set(self._connection.execute(select(c.sha256).where(c.sha256.in_(hashes))).scalars())

    def _describe(self, record: Any) -> str:
        return f"an image with the content {record.sha256}"


class Datasets(LivingRepository[DatasetRecord]):
    """Data sets; names are unique in a project."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, DatasetRow, DatasetRecord, UnknownDataset, "data set")

    def size_bytes(self, project_id: str, *, without: str | None = None) -> int:
        """Bytes of the images of a project's data sets, one of them (`without`) left out."""
        c = self._table.c
        query = select(func.coalesce(func.sum(c.size_bytes), 0)).where(
            c.project_id == project_id, *self._alive()
        )
        if without is not None:
            query = query.where(c.id != without)
        return int(self._connection.execute(query).scalar_one())

    def manifests(self) -> set[str]:
        """Artifacts with the samples of all data sets, also of deleted ones."""
        c = self._table.c.manifest_sha256
        return set(self._connection.execute(select(c).where(c.is_not(None))).scalars())


class DatasetVersions(Repository[DatasetVersion]):
    """Contents of data sets, newest first."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, DatasetVersionRow, DatasetVersion, UnknownDataset, "data set version")

    def of_job(self, job_id: str) -> DatasetVersion | None:
        """What an import made, None if it has made nothing yet."""
        return self._one(self._table.c.job_id == checked("job_id", job_id))

    def manifests(self) -> set[str]:
        """Artifacts with the samples of all contents that there ever were."""
        return set(self._connection.execute(select(self._table.c.manifest_sha256)).scalars())

    def newest(self, dataset_id: str, digest: str) -> DatasetVersion | None:
        """The last import that gave a data set this content, None if none did."""
        c = self._table.c
        query = (
            select(self._table)
            .where(c.dataset_id == checked("dataset_id", dataset_id), c.digest == checked("digest", digest))
            .order_by(c.created_at.desc(), c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(query).first()
        return None if row is None else self._from_row(row)

    def _describe(self, record: Any) -> str:
        return f"a version of data set {record.dataset_id} by job {record.job_id}"
