"""Asks for imports: from places that the administrator allowed, and from archives that are streamed in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request

from fulcrum.domain.errors import InvalidDataset, QuotaExceeded, StaleVersion, UnknownModel
from fulcrum.domain.jobs import ARTIFACT, ImportDataset, JobRecord
from fulcrum.domain.records import DatasetRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.datasets.schemas import ImportQuestion
from fulcrum.gateway.datasets.service import find
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.models import service as models
from fulcrum.gateway.services import Services
from fulcrum.gateway.settings import Settings
from fulcrum.store.artifacts import CHUNK_BYTES
from fulcrum.store.transaction import Transaction

_HEAD = 512  # of a tar, which has its mark at 257


@dataclass(frozen=True)
class Wanted:
    """How an archive is read."""

    format: str | None
    new_splits: bool
    seed: int
    model_id: str | None = None


def from_place(
    jobs: Submitter, asker: Asker, dataset_id: str, body: ImportQuestion, settings: Settings
) -> JobRecord:
    """Raises UnknownDataset, UnknownModel, StaleVersion, RateLimited."""
    with jobs.store.read() as tx:
        record = _asked(asker, tx, dataset_id, body.model_id)
    if body.expected_version not in (None, record.version):
        raise StaleVersion(
            f"data set {dataset_id} has version {record.version}, not {body.expected_version}: read it again"
        )
    spec = ImportDataset(
        dataset_id,
        body.source,
        body.format,
        body.new_splits,
        body.seed,
        replaces=record.digest or "",
        quota_bytes=settings.project_quota_bytes,
        model_id=body.model_id,
    )
    return jobs.submit(asker, record.project_id, spec)


async def from_archive(
    request: Request, services: Services, jobs: Submitter, asker: Asker, dataset_id: str, wanted: Wanted
) -> JobRecord:
    """Keeps the body as an artifact, then asks for its import.

    Raises UnknownDataset, UnknownModel, InvalidDataset for what is no archive, PayloadTooLarge, QuotaExceeded,
    RateLimited.
    """
    settings = services.settings

    def check(size_bytes: int) -> DatasetRecord:
        with services.store.read() as tx:
            record = _asked(asker, tx, dataset_id, wanted.model_id)
            _check_room(tx, record, size_bytes, settings.project_quota_bytes)
        return record

    # Before anything is kept: only who may import may fill the disk.
    announced = request.headers.get("content-length", "0")
    record = await run_in_thread(check, int(announced))  # a number: the limit of bodies has looked
    with services.artifacts.incoming(settings.max_archive_bytes) as file:
        async for chunk in _chunks(request):
            if file.size_bytes == 0:
                _check_beginning(chunk)
            await run_in_thread(file.write, chunk)
        if file.size_bytes == 0:
            raise InvalidDataset("nothing was sent: the body is the archive itself, a zip, tar or tar.gz")
        await run_in_thread(check, file.size_bytes)
        sha256, _ = await run_in_thread(file.commit)
    spec = ImportDataset(
        dataset_id,
        f"{ARTIFACT}{sha256}",
        wanted.format,
        wanted.new_splits,
        wanted.seed,
        replaces=record.digest or "",
        quota_bytes=settings.project_quota_bytes,
        model_id=wanted.model_id,
    )
    return await run_in_thread(jobs.submit, asker, record.project_id, spec)


def _asked(asker: Asker, tx: Transaction, dataset_id: str, model_id: str | None) -> DatasetRecord:
    """The data set, for one who may import into it, with a model of its project or none."""
    record = find(asker, tx, dataset_id, "analyst")
    if model_id is not None:
        model = models.find(asker, tx, model_id, "viewer")
        if model.project_id != record.project_id:
            raise UnknownModel(
                f"model {model.name!r} is not of the project of the data set {record.name!r}: register it there"
            )
    return record


def _check_room(tx: Transaction, record: DatasetRecord, size_bytes: int, quota_bytes: int | None) -> None:
    """Images hardly shrink, so an archive tells what they will take; the job counts exactly."""
    if quota_bytes is None:
        return
    others = tx.datasets.size_bytes(record.project_id, without=record.id)
    if others + size_bytes > quota_bytes:
        raise QuotaExceeded(
            f"the archive has {size_bytes} bytes and the other data sets of the project {others}: "
            f"together {quota_bytes} are allowed"
        )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces that are worth a write."""
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _check_beginning(chunk: bytes) -> None:
    is_tar = chunk[257:262] == b"ustar"
    if not is_tar and chunk[:2] != b"\x1f\x8b" and chunk[:2] != b"PK":
        raise InvalidDataset(
            f"neither zip, tar nor tar.gz: the body begins with {chunk[:8].hex(' ')}; it is the archive itself, "
            "not a form"
        )
