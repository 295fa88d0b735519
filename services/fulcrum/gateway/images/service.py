"""Uploaded images: bytes among the artifacts, a record in the project."""

import hashlib
import re
from typing import IO

import anyio

from fulcrum.domain.errors import AlreadyExists, UnknownImage
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ImageRecord, Page, Role
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams, run_in_thread
from fulcrum.gateway.images.pictures import check_picture, thumbnail
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# One decoded image may take 200 MB: only so many at once, whatever the number of uploads.
DECODING = anyio.CapacityLimiter(2)


async def upload(
    store: Store,
    artifacts: Artifacts,
    asker: Asker,
    file: IO[bytes],
    filename: str,
    project_id: str | None,
    max_bytes: int,
) -> tuple[ImageRecord, bool]:
    """The record, and whether it is new: the same bytes are one image of a project.

    Raises UnreadableImage, ImageTooLarge, PayloadTooLarge, Forbidden, UnknownProject.
    """

    def allowed_project() -> str:
        with store.read() as tx:
            return asker.project(tx, project_id, "analyst")

    project = await run_in_thread(allowed_project)

    def check_and_keep() -> tuple[ImageRecord, bool]:
        return keep(store, artifacts, asker, file.read(max_bytes + 1), filename, project, max_bytes)

    return await anyio.to_thread.run_sync(check_and_keep, limiter=DECODING)


def keep(
    store: Store,
    artifacts: Artifacts,
    asker: Asker,
    content: bytes,
    filename: str,
    project_id: str,
    max_bytes: int,
) -> tuple[ImageRecord, bool]:
    """`upload` of an asker who may, in a thread under `DECODING`."""
    checked = check_picture(content, max_bytes)
    with store.write() as tx:
        # An import of the same bytes may have failed, and what it left may be about to be removed.
        tx.import_contents.release([hashlib.sha256(content).hexdigest()])
    sha256 = artifacts.put_bytes(content)
    record = ImageRecord(
        id=new_id("img"),
        project_id=project_id,
        sha256=sha256,
        media_type=checked.media_type,
        size_bytes=len(content),
        width=checked.width,
        height=checked.height,
        filename=shown_name(filename),
        created_by=asker.user.id,
        created_at=now(),
    )
    with store.write() as tx:
        try:
            return tx.images.add(record), True
        except AlreadyExists:
            found = tx.images.by_sha256(project_id, sha256)
            if found is None:
                raise
            return found, False


def list_images(store: Store, asker: Asker, project_id: str | None, page: PageParams) -> Page[ImageRecord]:
    """A project's images, newest first."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.images.list(project, limit=page.limit, cursor=page.cursor)


def get(store: Store, asker: Asker, image_id: str) -> ImageRecord:
    """One of them. Raises UnknownImage, also for a stranger."""
    with store.read() as tx:
        return reach_image(tx, asker, image_id, "viewer")


def content(store: Store, artifacts: Artifacts, asker: Asker, image_id: str) -> tuple[ImageRecord, bytes]:
    """Record and bytes as they were uploaded. Raises UnknownImage, CorruptArtifact."""
    record = get(store, asker, image_id)
    return record, artifacts.read_bytes(record.sha256)


async def small_picture(
    store: Store, artifacts: Artifacts, asker: Asker, image_id: str
) -> tuple[ImageRecord, bytes]:
    """Record and a JPEG of at most 256 x 256 pixels."""
    record, original = await run_in_thread(content, store, artifacts, asker, image_id)
    return record, await shrunk(original)


async def shrunk(original: bytes) -> bytes:
    """A JPEG of at most 256 x 256 pixels of an image's bytes."""
    return await anyio.to_thread.run_sync(thumbnail, original, limiter=DECODING)


def delete(store: Store, asker: Asker, image_id: str, expected_version: int | None) -> None:
    """Hides the image; results that were computed from it stay. Raises UnknownImage, Forbidden, StaleVersion."""
    with store.write() as tx:
        record = reach_image(tx, asker, image_id, "analyst")
        tx.images.delete(image_id, expected_version)
        tx.audit.append(asker.user.id, "image.delete", image_id, {"sha256": record.sha256})


def reach_image(tx: Transaction, asker: Asker, image_id: str, role: Role) -> ImageRecord:
    """The record, for an asker with that role where it belongs. Raises UnknownImage, Forbidden."""
    record = tx.images.get(image_id)
    asker.may(tx, record, role, UnknownImage(f"no image with the id {image_id[:80]!r}"))
    return record


def shown_name(filename: str) -> str:
    """The last part of what a browser calls the file, without what would confuse a terminal or a page."""
    name = _UNPRINTABLE.sub("", re.split(r"[/\\]", filename)[-1]).strip()
    return name[:200] or "image"
