"""Data sets: the records and their images; images are imported by a job."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.packing import Sent, body_of
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.concepts import TopImage
from fulcrum.domain.datasets import DatasetImage, Facets, ImageName, ImportReport, Thumbnail
from fulcrum.domain.errors import InvalidRequest
from fulcrum.domain.evaluations import FlippedImage
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.records import DatasetRecord, DatasetVersion, ImageRecord

# By its record, as a flip board or a latent's examples show it, by its number, or by its id.
Shown = DatasetImage | FlippedImage | TopImage | int | str


class Datasets(Bound[Side]):
    """`client.datasets`: the records and their images.

    `digest` is the content that is meant, such as `dataset_digest` of an evaluation; None takes the present one.
    """

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
        model: Identified | str | None = None,
        expected_version: int | None = None,
    ) -> Flow[JobRecord]:
        """Imports images of `folder:NAME/sub` or `bucket:NAME/prefix`, below places allowed for workers, as a job.

        Wait for it with `client.jobs.wait`. With a registered `model`, images whose embeddings by it are nearly the
        same are near-duplicates too. With `expected_version` nothing is imported when the record has changed.
        Raises UnknownModel, StaleVersion, QuotaExceeded.
        """
        body = given(
            source=source,
            format=format,
            new_splits=new_splits,
            seed=seed,
            model_id=None if model is None else id_of(model),
            expected_version=expected_version,
        )
        where = path("datasets", f"{id_of(dataset)}:import")
        return (yield from self._wire.ask(JobRecord, "POST", where, json=body))

    @operation
    def upload(
        self,
        dataset: Identified | str,
        path: str | Path,
        *,
        format: str | None = None,
        new_splits: bool = False,
        seed: int = 0,
        model: Identified | str | None = None,
        on_sent: Sent | None = None,
    ) -> Flow[JobRecord]:
        """Sends a zip, tar or tar.gz, or a folder packed on the way, and imports its images as a job.

        `model` is that of `import_images`; `on_sent(bytes so far, bytes in all)` is called now and then.
        Raises UnknownModel, InvalidDataset, InvalidRequest, PayloadTooLarge, QuotaExceeded.
        """
        model_id = None if model is None else id_of(model)
        params = given(format=format, new_splits=new_splits, seed=seed, model_id=model_id)
        where = _upload_path(id_of(dataset))
        body = body_of(Path(path), on_sent)
        # Without a key, for which the gateway would keep a second copy; the same content twice is one content.
        return (yield from self._wire.ask(JobRecord, "POST", where, params=params, body=body, keyed=False))

    @listing(DatasetVersion)
    def versions(self, dataset: Identified | str) -> Flow[None]:
        """Contents that the data set has and had, newest first; each can be looked at by its digest."""
        yield from self._wire.pages(DatasetVersion, path("datasets", id_of(dataset), "versions"))

    @operation
    def report(self, dataset: Identified | str, *, digest: str | None = None) -> Flow[ImportReport]:
        """What the import found: images left out, duplicates, and what leaks between splits."""
        where = path("datasets", id_of(dataset), "report")
        return (yield from self._wire.ask(ImportReport, "GET", where, params=given(digest=digest)))

    @listing(DatasetImage)
    def images(
        self,
        dataset: Identified | str,
        *,
        split: str | None = None,
        label: str | None = None,
        where: Mapping[str, str] | None = None,
        words: str | None = None,
        image_set: Identified | str | None = None,
        digest: str | None = None,
    ) -> Flow[None]:
        """Images in the order of their ids, with `words` in the id, of an `image_set`.

        `where` takes groups, `pair_id` and quarters of covariates (`{"sticker": "word", "covariate_size": "q4"}`);
        the value "" is that of images without one. Raises InvalidDataset for a column that is not there.
        """
        filters = _filters(split, label, where, words, image_set, digest)
        yield from self._wire.pages(DatasetImage, path("datasets", id_of(dataset), "images"), filters)

    @operation
    def facets(
        self,
        dataset: Identified | str,
        *,
        split: str | None = None,
        label: str | None = None,
        where: Mapping[str, str] | None = None,
        words: str | None = None,
        image_set: Identified | str | None = None,
        digest: str | None = None,
    ) -> Flow[Facets]:
        """How many images there are of each split, label, group and covariate, among those that are chosen."""
        filters = _filters(split, label, where, words, image_set, digest)
        return (
            yield from self._wire.ask(
                Facets, "GET", path("datasets", id_of(dataset), "facets"), params=filters
            )
        )

    @operation
    def image(
        self, dataset: Identified | str, image: Shown, *, digest: str | None = None
    ) -> Flow[DatasetImage]:
        """What is known about one image. Raises UnknownImage."""
        where, params = _place(dataset, image, digest)
        return (yield from self._wire.ask(DatasetImage, "GET", where, params=params))

    @operation
    def image_content(
        self, dataset: Identified | str, image: Shown, *, digest: str | None = None
    ) -> Flow[bytes]:
        """The bytes as they were imported."""
        where, params = _place(dataset, image, digest)
        return (yield from self._wire.fetch(f"{where}/content", params))

    @operation
    def thumbnail(self, dataset: Identified | str, image: Shown, *, digest: str | None = None) -> Flow[bytes]:
        """A small picture of an image, as a JPEG file.

        `client.datasets.thumbnail(top.dataset_id, top)` shows an example of a latent, and
        `client.datasets.thumbnail(record.dataset_id, flipped, digest=record.dataset_digest)` a card of a flip board.
        """
        where, params = _place(dataset, image, digest)
        return (yield from self._wire.fetch(f"{where}/thumbnail", params))

    @operation
    def thumbnails(
        self, dataset: Identified | str, images: Sequence[Shown], *, digest: str | None = None
    ) -> Flow[tuple[bytes, ...]]:
        """Small pictures of up to 200 images in one request, in their order; examples of one description at a time."""
        if not images:
            return ()
        named = [_name(image, digest) for image in images]
        digests = {of for _, of in named}
        if len(digests) > 1:
            raise InvalidRequest("the images are of several contents of the data set: ask for one at a time")
        body = given(images=[to_json(name) for name, _ in named], digest=next(iter(digests), None))
        where = path("datasets", id_of(dataset), "images:thumbnails")
        kind = tuple[Thumbnail, ...]
        found = yield from self._wire.ask(kind, "POST", where, json=body, keyed=False)
        return tuple(base64.b64decode(t.jpeg) for t in found)

    @operation
    def mask(self, dataset: Identified | str, image: Shown, *, digest: str | None = None) -> Flow[bytes]:
        """The mask that was imported with an image. Raises UnknownImage where there is none."""
        # By its id: of two images with the same bytes each may have its own mask.
        named = image.id if isinstance(image, DatasetImage) else image
        where, params = _place(dataset, named, digest)
        return (yield from self._wire.fetch(f"{where}/mask", params))

    @operation
    def open_image(
        self, dataset: Identified | str, image: Shown, *, digest: str | None = None
    ) -> Flow[ImageRecord]:
        """An image of the project with the same content, for `client.explain` and `client.steer`."""
        where, params = _place(dataset, image, digest)
        return (yield from self._wire.ask(ImageRecord, "POST", f"{where}:open", params=params, keyed=False))


def _upload_path(dataset_id: str) -> str:
    return path("datasets", f"{dataset_id}:upload")


def _filters(
    split: str | None,
    label: str | None,
    where: Mapping[str, str] | None,
    words: str | None,
    image_set: Identified | str | None,
    digest: str | None,
) -> dict[str, Any]:
    columns = [f"{column}={value}" for column, value in (where or {}).items()]
    return given(
        split=split,
        label=label,
        where=columns or None,
        q=words,
        image_set_id=None if image_set is None else id_of(image_set),
        digest=digest,
    )


def _place(dataset: Identified | str, image: Shown, digest: str | None) -> tuple[str, dict[str, object]]:
    """Path of an image, and the parameters that say what the path names it by."""
    named, digest = _name(image, digest)
    if named.name in ("", ".", ".."):
        raise InvalidRequest(
            f"the id {named.name!r} cannot stand in an address: name the image by its number"
        )
    where = path("datasets", id_of(dataset), "images", quote(named.name, safe=""))
    return where, given(by=named.by, digest=digest)


def _name(image: Shown, digest: str | None) -> tuple[ImageName, str | None]:
    """What to call an image, and the content in which it is called so."""
    match image:
        case DatasetImage():
            return ImageName(image.sha256, "sha256"), digest
        case TopImage():
            return ImageName(str(image.image), "number"), digest or image.dataset_digest
        case FlippedImage():
            return ImageName(image.id), digest
        case int():
            return ImageName(str(image), "number"), digest
        case str():
            return ImageName(image), digest
