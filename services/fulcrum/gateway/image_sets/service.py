"""What happens to sets of images. A set changes; what a validation froze of it stays among the artifacts."""

from collections.abc import Collection, Sequence

from fulcrum.domain.codec import from_json
from fulcrum.domain.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidRequest,
    PayloadTooLarge,
    UnknownImage,
    UnknownImageSet,
)
from fulcrum.domain.evaluations import FlipFilter
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.image_sets import MAX_IMAGES, FrozenImageSet, ImageSetPurpose, from_bytes, to_bytes
from fulcrum.domain.records import DatasetRecord, ImageSetRecord, Page, Role
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.datasets import browsing
from fulcrum.gateway.datasets import service as datasets
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.evaluations import service as evaluations
from fulcrum.gateway.evaluations.schemas import FlipFilter as FlipFilterBody
from fulcrum.gateway.image_sets.schemas import ImageSetChange, NewImageSet
from fulcrum.gateway.reach import reach, reach_all
from fulcrum.gateway.schemas import changes
from fulcrum.gateway.services import Services
from fulcrum.store.database import Store
from fulcrum.store.paging import from_cursor, to_cursor
from fulcrum.store.transaction import Transaction

_WORD = "image of a set"  # of cursors
_NAMED = 5  # ids in a message


def find(asker: Asker, tx: Transaction, image_set_id: str, role: Role) -> ImageSetRecord:
    """Raises UnknownImageSet, Forbidden."""
    return reach(asker, tx, tx.image_sets, image_set_id, role, UnknownImageSet, "image set")


def frozen(
    asker: Asker, tx: Transaction, dataset: DatasetRecord, ids: Sequence[str], split: str
) -> tuple[FrozenImageSet, ...]:
    """The sets as they are now, in the order of their names. Raises UnknownImageSet, and InvalidRequest for sets of
    another data set and for an invariant list without an image in the split: its gate would stay undecided, and a look
    at confirm would be spent for nothing.
    """
    found = reach_all(asker, tx, tx.image_sets, ids, "viewer", UnknownImageSet, "image set")
    for record in found:
        if record.dataset_id != dataset.id:
            raise InvalidRequest(
                f"image set {record.name!r} is of data set {record.dataset_id}, not of {dataset.id}"
            )
        if record.purpose == "invariant" and not record.n_by_split.get(split):
            raise InvalidRequest(
                f"the invariant list {record.name!r} has no image in {split}, so it cannot be judged there: it has "
                f"{record.n_by_split}"
            )
    each = {r.id: r.frozen() for r in found}
    return tuple(sorted(each.values(), key=lambda s: s.name))


def make(services: Services, asker: Asker, body: NewImageSet) -> ImageSetRecord:
    """Raises UnknownDataset, UnknownImage, UnknownEvaluation, InvalidInput for no image, AlreadyExists, Forbidden."""
    with services.store.read() as tx:
        datasets.find(asker, tx, body.dataset_id, "analyst")
    at = browsing.content(services.store, services.dataset_files, asker, body.dataset_id, None)
    chosen = {*body.image_ids, *_flipped(services, asker, body.dataset_id, body.flips)}
    _check_there(at, chosen)
    _check_size(body.name, chosen)
    sha256 = services.artifacts.put_bytes(to_bytes(chosen))
    with services.store.write() as tx:
        dataset = datasets.find(asker, tx, body.dataset_id, "analyst")
        record = tx.image_sets.add(
            ImageSetRecord(
                id=new_id("ims"),
                project_id=dataset.project_id,
                dataset_id=dataset.id,
                name=body.name,
                purpose=body.purpose,
                sha256=sha256,
                n_images=len(chosen),
                created_by=asker.user.id,
                created_at=now(),
                note=body.note,
                n_by_split=_by_split(at, chosen),
            )
        )
        detail = {"name": record.name, "purpose": record.purpose, "n_images": record.n_images}
        tx.audit.append(asker.user.id, "image_set.create", record.id, detail)
    return record


def page(
    store: Store,
    asker: Asker,
    project_id: str | None,
    params: PageParams,
    *,
    dataset_id: str | None,
    purpose: ImageSetPurpose | None,
) -> Page[ImageSetRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.image_sets.list(
            project, limit=params.limit, cursor=params.cursor, dataset_id=dataset_id, purpose=purpose
        )


def get(store: Store, asker: Asker, image_set_id: str) -> ImageSetRecord:
    """Raises UnknownImageSet."""
    with store.read() as tx:
        return find(asker, tx, image_set_id, "viewer")


def image_ids(services: Services, asker: Asker, image_set_id: str, params: PageParams) -> Page[str]:
    """Ids in their order. Raises UnknownImageSet, InvalidRequest for a cursor of other images."""
    record = get(services.store, asker, image_set_id)
    start = 0
    if params.cursor is not None:
        start, of = from_cursor(params.cursor, _WORD, int, str)
        if of != record.sha256[:16] or start < 0:
            raise InvalidRequest(
                f"the cursor belongs to other images of the set {record.name!r}: begin without one"
            )
    ids = _ids(services, record)
    end = start + params.limit
    more = to_cursor(_WORD, end, record.sha256[:16]) if end < len(ids) else None
    return Page(ids[start:end], more)


def ids_of(services: Services, asker: Asker, image_set_id: str, dataset_id: str) -> frozenset[str]:
    """All images of a set of this data set. Raises UnknownImageSet."""
    record = get(services.store, asker, image_set_id)
    if record.dataset_id != dataset_id:
        raise UnknownImageSet(f"the image set {record.name!r} is of another data set: {record.dataset_id}")
    return frozenset(_ids(services, record))


def change(
    services: Services, asker: Asker, image_set_id: str, body: ImageSetChange, expected: int | None
) -> ImageSetRecord:
    """Raises UnknownImageSet, StaleVersion, AlreadyExists, and what `make` raises for images."""
    named = changes(body)
    images = {"add", "add_flips", "remove"} & set(named)
    words = {k: v for k, v in named.items() if k not in images}
    with services.store.read() as tx:
        record = find(asker, tx, image_set_id, "analyst")
    if images:
        words |= _other_images(services, asker, record, body)
    # Whoever takes what is there still adds to the images that were read above, and to no others.
    of = record.version if expected is None and images else expected
    with services.store.write() as tx:
        find(asker, tx, image_set_id, "analyst")
        record = tx.image_sets.update(image_set_id, of, **words)
        detail = {k: v for k, v in words.items() if k != "n_by_split"}
        tx.audit.append(asker.user.id, "image_set.change", image_set_id, detail)
    return record


def remove(store: Store, asker: Asker, image_set_id: str, expected: int | None) -> None:
    """Raises UnknownImageSet, StaleVersion."""
    with store.write() as tx:
        record = find(asker, tx, image_set_id, "analyst")
        tx.image_sets.delete(image_set_id, expected)
        tx.audit.append(asker.user.id, "image_set.delete", image_set_id, {"name": record.name})


def restore(store: Store, asker: Asker, image_set_id: str) -> ImageSetRecord:
    """The set as it was; one that is not deleted is answered as it is. Raises UnknownImageSet, Forbidden,
    UnknownDataset where its data set is gone, AlreadyExists where another one took its name.
    """
    with store.write() as tx:
        try:
            return find(asker, tx, image_set_id, "analyst")
        except UnknownImageSet as missing:
            record = tx.image_sets.deleted(image_set_id)
            asker.may(tx, record, "analyst", missing)
        datasets.find(asker, tx, record.dataset_id, "analyst")
        try:
            restored = tx.image_sets.restore(image_set_id)
        except AlreadyExists:
            raise AlreadyExists(
                f"another image set of the data set is called {record.name!r} now: rename that one, then this one "
                "can be restored"
            ) from None
        tx.audit.append(asker.user.id, "image_set.restore", image_set_id, {"name": record.name})
    return restored


def _other_images(
    services: Services, asker: Asker, record: ImageSetRecord, body: ImageSetChange
) -> dict[str, object]:
    at = browsing.content(services.store, services.dataset_files, asker, record.dataset_id, None)
    added = {*(body.add or ()), *_flipped(services, asker, record.dataset_id, body.add_flips)}
    _check_there(at, added)
    known = set(_ids(services, record)) | added
    strange = sorted(set(body.remove or ()) - known)
    if strange:
        raise UnknownImage(f"{_some(strange)} cannot be removed: not in the image set {record.name!r}")
    chosen = known - set(body.remove or ())
    _check_size(record.name, chosen)
    return {
        "sha256": services.artifacts.put_bytes(to_bytes(chosen)),
        "n_images": len(chosen),
        "n_by_split": _by_split(at, chosen),
    }


def _ids(services: Services, record: ImageSetRecord) -> tuple[str, ...]:
    return from_bytes(services.artifacts.read_bytes(record.sha256))


def _flipped(
    services: Services, asker: Asker, dataset_id: str, body: FlipFilterBody | None
) -> tuple[str, ...]:
    if body is None:
        return ()
    wanted = from_json(FlipFilter, body.model_dump())
    record, ids = evaluations.flipped_ids(services.store, services.artifacts, asker, wanted)
    if record.dataset_id != dataset_id:
        raise InvalidRequest(
            f"evaluation {record.id} is of data set {record.dataset_id}: a set holds images of one, {dataset_id}"
        )
    return ids


def _check_there(at: browsing.Content, ids: Collection[str]) -> None:
    unknown = sorted(i for i in ids if not at.opened.has(i))
    if unknown:
        raise UnknownImage(
            f"{len(unknown)} of {len(ids)} images are not in the data set {at.record.name!r} as it is: {_some(unknown)}"
        )


def _check_size(name: str, ids: Collection[str]) -> None:
    if not ids:
        raise InvalidInput(f"the image set {name!r} would hold no image: at least one is needed")
    if len(ids) > MAX_IMAGES:
        raise PayloadTooLarge(
            f"the image set {name!r} would hold {len(ids)} images; {MAX_IMAGES} are allowed"
        )


def _by_split(at: browsing.Content, ids: Collection[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for i in ids:
        if at.opened.has(i):  # those of an earlier content may be gone
            split = at.opened.split_of(i)
            counts[split] = counts.get(split, 0) + 1
    return dict(sorted(counts.items()))


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED
    return ", ".join(repr(i[:80]) for i in ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")
