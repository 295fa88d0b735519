"""Latents: what is known about them from an index of a data set."""

from collections.abc import Sequence
from typing import Literal

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.concepts import (
    DescribedLatent,
    LatentCard,
    LatentDetail,
    LatentHit,
    LatentMap,
    LatentSort,
    SearchBy,
    TopImage,
)
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.records import DescriptionRecord, ImageRecord, IndexRecord

Dataset = Identified | str | None


class Latents(Bound[Side]):
    """`client.latents`. `dataset`: by the description from that data set; None takes the newest."""

    @operation
    def index(self, dataset: Identified | str, sae: Identified | str) -> Flow[JobRecord]:
        """Encodes a data set under an SAE, as a job; what stands on an index asks for it by itself."""
        place = path("datasets", f"{id_of(dataset)}:index")
        return (yield from self._wire.ask(JobRecord, "POST", place, json={"sae_id": id_of(sae)}))

    @operation
    def describe(
        self,
        sae: Identified | str,
        dataset: Identified | str,
        *,
        vocabulary: Sequence[str] = (),
        n_top_images: int = 16,
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Finds out what the latents stand for, as a job. `vocabulary` () takes the built-in one."""
        body = {
            "dataset_id": id_of(dataset),
            "vocabulary": [*vocabulary],
            "n_top_images": n_top_images,
            "seed": seed,
        }
        place = path("saes", f"{id_of(sae)}:describe")
        return (yield from self._wire.ask(JobRecord, "POST", place, json=body))

    @listing(IndexRecord)
    def indexes(self, *, dataset: Dataset = None, sae: Dataset = None) -> Flow[None]:
        """Indexes of the project, newest first."""
        filters = given(project_id=self._wire.project_id, dataset_id=_id(dataset), sae_id=_id(sae))
        yield from self._wire.pages(IndexRecord, path("indexes"), filters)

    @listing(DescriptionRecord)
    def descriptions(self, sae: Identified | str) -> Flow[None]:
        """Descriptions of an SAE's latents, newest first."""
        yield from self._wire.pages(DescriptionRecord, path("saes", id_of(sae), "descriptions"))

    @listing(DescribedLatent)
    def list(
        self,
        sae: Identified | str,
        *,
        sort: LatentSort = "image_rate",
        descending: bool = True,
        words: str | None = None,
        labelled_by: Literal["auto", "person"] | None = None,
        image_rate_max: float | None = None,
        dataset: Dataset = None,
    ) -> Flow[None]:
        """Latents that fire at least once, in the order asked for. Raises UnknownDescription."""
        filters = given(
            sort=sort,
            descending=descending,
            q=words,
            labelled_by=labelled_by,
            image_rate_max=image_rate_max,
            dataset_id=_id(dataset),
        )
        yield from self._wire.pages(DescribedLatent, path("saes", id_of(sae), "latents"), filters)

    @operation
    def get(self, sae: Identified | str, latent: int, *, dataset: Dataset = None) -> Flow[LatentDetail]:
        """All that is known about one latent. Raises UnknownDescription, LatentOutOfRange."""
        where = path("saes", id_of(sae), "latents", latent)
        return (yield from self._wire.ask(LatentDetail, "GET", where, params=given(dataset_id=_id(dataset))))

    @operation
    def cards(
        self,
        sae: Identified | str,
        latents: Sequence[int],
        *,
        n_examples: int = 4,
        dataset: Dataset = None,
    ) -> Flow[tuple[LatentCard, ...]]:
        """Label, rates and examples of up to 100 latents, in the order asked for."""
        params = given(
            latents=",".join(str(int(n)) for n in latents), n_examples=n_examples, dataset_id=_id(dataset)
        )
        where = path("saes", id_of(sae), "latents:batch")
        return (yield from self._wire.ask(tuple[LatentCard, ...], "GET", where, params=params))

    @operation
    def top_images(
        self,
        sae: Identified | str,
        latent: int,
        *,
        by: Literal["max", "mean"] = "max",
        n: int = 16,
        dataset: Dataset = None,
    ) -> Flow[tuple[TopImage, ...]]:
        """Images where the latent is strongest, with where in them it is stored."""
        params = given(by=by, n=n, dataset_id=_id(dataset))
        where = path("saes", id_of(sae), "latents", latent, "top-images")
        return (yield from self._wire.ask(tuple[TopImage, ...], "GET", where, params=params))

    @operation
    def map(self, sae: Identified | str, *, dataset: Dataset = None) -> Flow[LatentMap]:
        """Latents on a plane: those of like meaning lie together."""
        where = path("saes", id_of(sae), "map")
        return (yield from self._wire.ask(LatentMap, "GET", where, params=given(dataset_id=_id(dataset))))

    @operation
    def search(
        self,
        sae: Identified | str,
        what: str | ImageRecord,
        *,
        by: SearchBy = "latents",
        n: int = 20,
        dataset: Dataset = None,
    ) -> Flow[tuple[LatentHit, ...]]:
        """Latents by words, or by an uploaded image (`by`: those strong in it, or of like meaning), best first."""
        asked = {"text": what} if isinstance(what, str) else {"image_id": what.id}
        body = asked | given(by=by, n=n, dataset_id=_id(dataset))
        where = path("saes", f"{id_of(sae)}:search")
        return (yield from self._wire.ask(tuple[LatentHit, ...], "POST", where, json=body, keyed=False))


def _id(thing: Dataset) -> str | None:
    return None if thing is None else id_of(thing)
