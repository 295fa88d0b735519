"""Images of data sets, as pages, single ones and counts; nothing here changes a data set."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np

from fulcrum.datasets import browsing
from fulcrum.domain.datasets import DatasetImage, Facets, ImageBy, Thumbnail
from fulcrum.domain.errors import InvalidDataset, InvalidRequest, UnknownDataset
from fulcrum.domain.records import DatasetRecord, DatasetVersion, ImageRecord, Page
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.datasets.reading import DatasetFiles, OpenedDataset
from fulcrum.gateway.datasets.service import find
from fulcrum.gateway.deps import PageParams, run_in_thread
from fulcrum.gateway.images import service as images
from fulcrum.gateway.services import Services
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.store.paging import from_cursor, to_cursor
from fulcrum.store.transaction import Transaction

_WORD = "dataset image"  # of cursors
_SHOWN_DIGEST = 16


@dataclass(frozen=True)
class Content:
    """One content of a data set, and its samples."""

    record: DatasetRecord
    digest: str
    opened: OpenedDataset


@dataclass(frozen=True)
class Filter:
    """Which images are wanted; `where` holds texts such as `column=value`, `ids` those of an image set."""

    split: str | None = None
    label: str | None = None
    where: Sequence[str] = ()
    words: str | None = None
    image_set_id: str | None = None
    ids: frozenset[str] | None = None

    def conditions(self) -> list[tuple[str, str]]:
        """As `datasets.browsing` takes them. Raises InvalidRequest."""
        found = [(n, v) for n, v in (("split", self.split), ("label", self.label)) if v is not None]
        for text in self.where:
            name, equals, value = text.partition("=")
            if not equals:
                raise InvalidRequest(f"where is {text[:80]!r}: expected 'column=value'")
            found.append((name, value))
        return found


def content(store: Store, files: DatasetFiles, asker: Asker, dataset_id: str, digest: str | None) -> Content:
    """What was imported. Raises UnknownDataset (also for a digest that it does not have), InvalidDataset."""
    with store.read() as tx:
        record = find(asker, tx, dataset_id, "viewer")
        now = _version(tx, record, digest)
    return Content(record, now.digest, files.opened(now.manifest_sha256, record.name))


def page(at: Content, params: PageParams, wanted: Filter) -> Page[DatasetImage]:
    """Images in the order of their ids. Raises InvalidDataset for a column that is not there, InvalidRequest."""
    start = 0
    if params.cursor is not None:
        start, of = from_cursor(params.cursor, _WORD, int, str)
        if of != at.digest[:_SHOWN_DIGEST] or start < 0:
            raise InvalidRequest(
                f"the cursor belongs to another content of {at.record.name!r}: begin without one"
            )
    numbers = _numbers(at, wanted)
    here = numbers[numbers >= start]
    shown = here[: params.limit].tolist()
    more = len(here) > len(shown)
    return Page(
        tuple(at.opened.image(n) for n in shown),
        to_cursor(_WORD, shown[-1] + 1, at.digest[:_SHOWN_DIGEST]) if more else None,
    )


def facets(at: Content, wanted: Filter) -> Facets:
    """Counts among the chosen images. Raises InvalidDataset for a column that is not there."""
    dataset = at.opened.dataset
    numbers = _numbers(at, wanted)
    return Facets(
        dataset_id=at.record.id,
        digest=at.digest,
        n_images=len(numbers),
        split=browsing.facet(dataset, "split", numbers),
        label=browsing.facet(dataset, "label", numbers),
        groups=browsing.group_facets(dataset, numbers),
        covariates=browsing.covariate_facets(dataset, numbers),
    )


def image(at: Content, name: str, by: ImageBy) -> DatasetImage:
    """Raises UnknownImage, InvalidRequest."""
    return at.opened.image(at.opened.number(name, by))


async def thumbnail(services: Services, at: Content, number: int) -> bytes:
    """A JPEG of at most 256 x 256 pixels. Raises UnknownArtifact, CorruptArtifact."""
    files = services.dataset_files
    found = await run_in_thread(files.thumbnail, at.opened, number)
    if found is None:
        sha256 = at.opened.dataset.bytes_sha256[number]
        original = await run_in_thread(services.artifacts.read_bytes, sha256)
        found = await images.shrunk(original)
        files.keep_thumbnail(sha256, found)
    return found


async def thumbnails(services: Services, at: Content, numbers: Sequence[int]) -> list[Thumbnail]:
    """Those of several images, in their order."""
    found = []
    for number in numbers:
        content = await thumbnail(services, at, number)
        found.append(Thumbnail(at.opened.dataset.bytes_sha256[number], base64.b64encode(content).decode()))
    return found


def report(store: Store, artifacts: Artifacts, asker: Asker, dataset_id: str, digest: str | None) -> Any:
    """What the import found, as JSON. Raises UnknownDataset, InvalidDataset where no report was kept."""
    with store.read() as tx:
        record = find(asker, tx, dataset_id, "viewer")
        now = _version(tx, record, digest)
    if now.report_sha256 is None:
        raise InvalidDataset(f"the data set {record.name!r} was imported before reports were kept")
    return json.loads(artifacts.read_bytes(now.report_sha256))


def versions(store: Store, asker: Asker, dataset_id: str, params: PageParams) -> Page[DatasetVersion]:
    """Contents that a data set has and had, newest first. Raises UnknownDataset."""
    with store.read() as tx:
        record = find(asker, tx, dataset_id, "viewer")
        return tx.dataset_versions.list(
            record.project_id, limit=params.limit, cursor=params.cursor, dataset_id=record.id
        )


async def open_image(
    services: Services, asker: Asker, at: Content, found: DatasetImage
) -> tuple[ImageRecord, bool]:
    """The record of the image among those of the project, and whether it is new.

    Raises Forbidden, and ImageTooLarge for one that could not be uploaded either.
    """

    def allowed() -> None:
        with services.store.read() as tx:
            find(asker, tx, at.record.id, "analyst")

    await run_in_thread(allowed)
    original = await run_in_thread(services.artifacts.read_bytes, found.sha256)
    return await anyio.to_thread.run_sync(
        images.keep,
        services.store,
        services.artifacts,
        asker,
        original,
        found.id,
        at.record.project_id,
        services.settings.max_upload_bytes,
        limiter=images.DECODING,
    )


def _numbers(at: Content, wanted: Filter) -> browsing.Numbers:
    numbers = browsing.chosen(at.opened.dataset, wanted.conditions(), wanted.words)
    if wanted.ids is None:
        return numbers
    samples = at.opened.dataset.samples
    inside = np.array([samples[n].id in wanted.ids for n in numbers.tolist()], dtype=bool)
    chosen: browsing.Numbers = numbers[inside]
    return chosen


@dataclass(frozen=True)
class _Version:
    digest: str
    manifest_sha256: str
    report_sha256: str | None


def _version(tx: Transaction, record: DatasetRecord, digest: str | None) -> _Version:
    """The content that is meant."""
    if record.digest is None or record.manifest_sha256 is None:
        raise InvalidDataset(f"the data set {record.name!r} is {record.state}: import images into it first")
    if digest is None or digest == record.digest:
        return _Version(record.digest, record.manifest_sha256, record.report_sha256)
    found = tx.dataset_versions.newest(record.id, digest)
    if found is None:
        raise UnknownDataset(
            f"the data set {record.name!r} never had the content {digest[:80]!r}: it is {record.digest} now"
        )
    return _Version(found.digest, found.manifest_sha256, found.report_sha256)
