"""Uploaded images."""

from pathlib import Path

from fulcrum.client.answers import Reading
from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.pictures import Picture, picture_part
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.records import ImageRecord


class Images(Bound[Side]):
    """`client.images`."""

    @operation
    def upload(self, picture: Picture, *, filename: str | None = None) -> Flow[ImageRecord]:
        """The record of an image; the same bytes again give the same record.

        A path, bytes, an open file, a PIL image, or an array (height, width, 3) of uint8.
        Raises UnreadableImage, ImageTooLarge.
        """
        part = picture_part(picture, filename)
        fields = {k: str(v) for k, v in given(project_id=self._wire.project_id).items()}
        # Without a key: the same bytes twice are one image anyway.
        return (
            yield from self._wire.ask(
                ImageRecord, "POST", path("images"), fields=fields, files=(part,), keyed=False
            )
        )

    @operation
    def get(self, image: Identified | str) -> Flow[ImageRecord]:
        """One image's record. Raises UnknownImage."""
        return (yield from self._wire.ask(ImageRecord, "GET", path("images", id_of(image))))

    @listing(ImageRecord)
    def list(self) -> Flow[None]:
        """All images of the project, newest first."""
        yield from self._wire.pages(ImageRecord, path("images"), given(project_id=self._wire.project_id))

    @operation
    def content(self, image: Identified | str) -> Flow[bytes]:
        """The bytes as they were uploaded."""
        return (yield from self._wire.fetch(path("images", id_of(image), "content")))

    @operation
    def thumbnail(self, image: Identified | str) -> Flow[bytes]:
        """A small picture of it, as an encoded file."""
        return (yield from self._wire.fetch(path("images", id_of(image), "thumbnail")))

    @operation
    def download(self, image: Identified | str, to: str | Path) -> Flow[Path]:
        """Writes the bytes to a file, or under the image's own name into a folder; returns where they are."""
        target = Path(to)
        if target.is_dir():
            record = image if isinstance(image, ImageRecord) else (yield from Images.get.flow(self, image))
            # A name that somebody uploaded must not lead out of the folder.
            target = target / (Path(record.filename.replace("\\", "/")).name or record.sha256)
        target.write_bytes((yield from Images.content.flow(self, image)))
        return target

    @operation
    def latents(
        self, image: Identified | str, sae: Identified | str, *, deterministic: bool = False
    ) -> Flow[ImageLatents]:
        """Which latents of an SAE fire on each token of the image, and how strongly."""
        where = path("images", id_of(image), "latents")
        reading = yield from self._wire.ask(
            Reading[ImageLatents], "GET", where, params={"sae_id": id_of(sae), "deterministic": deterministic}
        )
        return reading.value

    @operation
    def delete(self, image: Versioned | str) -> Flow[None]:
        """Takes the image out of the project. Raises StaleVersion when the record is not the newest."""
        yield from self._wire.do("DELETE", path("images", id_of(image)), if_match=precondition(image))
