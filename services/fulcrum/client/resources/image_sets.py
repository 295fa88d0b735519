"""Image sets: images of a data set under a name, as tags and slices, and as lists that must keep their answers."""

from collections.abc import Iterable

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, Versioned, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.datasets import DatasetImage
from fulcrum.domain.evaluations import FlipFilter, FlippedImage
from fulcrum.domain.image_sets import ImageSetPurpose
from fulcrum.domain.records import ImageSetRecord

# By its record, as a data set or a flip board shows it, or by its id.
Chosen = DatasetImage | FlippedImage | str


class ImageSets(Bound[Side]):
    """`client.image_sets`: images that somebody chose, to be judged by `client.evaluations.validate`.

    A `slice` (a tag is one) becomes a row of the slice table, an `invariant` list a gate: no answer on it may change.
    """

    @operation
    def create(
        self,
        dataset: Identified | str,
        name: str,
        images: Iterable[Chosen] = (),
        *,
        purpose: ImageSetPurpose = "slice",
        note: str = "",
        flips: FlipFilter | None = None,
    ) -> Flow[ImageSetRecord]:
        """Keeps these images, and with `flips` those of a flip board.

        Raises AlreadyExists for a taken name, UnknownImage for images that the data set does not have.
        """
        body = given(
            dataset_id=id_of(dataset),
            name=name,
            purpose=purpose,
            note=note,
            image_ids=_ids(images),
            flips=None if flips is None else to_json(flips),
        )
        return (yield from self._wire.ask(ImageSetRecord, "POST", path("image-sets"), json=body))

    @listing(ImageSetRecord)
    def list(
        self, *, dataset: Identified | str | None = None, purpose: ImageSetPurpose | None = None
    ) -> Flow[None]:
        """All sets of the project (of a data set), newest first."""
        filters = given(
            project_id=self._wire.project_id,
            dataset_id=None if dataset is None else id_of(dataset),
            purpose=purpose,
        )
        yield from self._wire.pages(ImageSetRecord, path("image-sets"), filters)

    @operation
    def get(self, image_set: Identified | str) -> Flow[ImageSetRecord]:
        """One set, without its images. Raises UnknownImageSet."""
        return (yield from self._wire.ask(ImageSetRecord, "GET", path("image-sets", id_of(image_set))))

    @listing(str)
    def images(self, image_set: Identified | str) -> Flow[None]:
        """Ids of its images, in order; `client.datasets.images(dataset, image_set=...)` shows the images."""
        yield from self._wire.pages(str, path("image-sets", id_of(image_set), "images"), {})

    @operation
    def update(
        self,
        image_set: Versioned | str,
        *,
        name: str | None = None,
        purpose: ImageSetPurpose | None = None,
        note: str | None = None,
        add: Iterable[Chosen] = (),
        add_flips: FlipFilter | None = None,
        remove: Iterable[Chosen] = (),
    ) -> Flow[ImageSetRecord]:
        """The set with other words or images. Evaluations that judged it keep what it was. Raises StaleVersion,
        UnknownImage for images to add that the data set does not have, or to remove that are not in the set.
        """
        body = given(
            name=name,
            purpose=purpose,
            note=note,
            add=_ids(add) or None,
            add_flips=None if add_flips is None else to_json(add_flips),
            remove=_ids(remove) or None,
        )
        where = path("image-sets", id_of(image_set))
        return (
            yield from self._wire.ask(
                ImageSetRecord, "PATCH", where, json=body, if_match=precondition(image_set)
            )
        )

    @operation
    def delete(self, image_set: Versioned | str) -> Flow[None]:
        """Takes the set out of the project; its images, and evaluations that judged it, stay. `restore` undoes it."""
        yield from self._wire.do(
            "DELETE", path("image-sets", id_of(image_set)), if_match=precondition(image_set)
        )

    @operation
    def restore(self, image_set: Identified | str) -> Flow[ImageSetRecord]:
        """The deleted set, there again. Raises AlreadyExists where another one took its name, UnknownImageSet."""
        where = path("image-sets", f"{id_of(image_set)}:restore")
        return (yield from self._wire.ask(ImageSetRecord, "POST", where))


def _ids(images: Iterable[Chosen]) -> list[str]:
    return [i if isinstance(i, str) else i.id for i in images]
