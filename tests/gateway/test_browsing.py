"""Images of an imported data set over HTTP and through the SDK."""

import asyncio
import dataclasses
import hashlib
import io

import pytest
from PIL import Image
from tests.datasets.images import encoded, picture

from fulcrum.client import AsyncClient, Client
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.datasets.stored import write_manifest
from fulcrum.domain.concepts import TopImage
from fulcrum.domain.errors import Forbidden, InvalidDataset, InvalidRequest, UnknownDataset, UnknownImage
from fulcrum.domain.evaluations import FlippedImage
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import DatasetRecord

SPLITS = ("discover", "select", "confirm")


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images by their source."""

    images: dict[str, bytes]

    def read(self, source):
        return self.images[source]

    def stamp(self, source):
        return 0, 0


def samples_of(n):
    return [
        Sample(
            # As an ImageFolder names them, and as somebody could.
            id=f"{'ab'[i % 2]}/{i:02d} é?#%.png",
            source=str(i),
            label="ab"[i % 2],
            split=SPLITS[i % 3],
            groups={"sticker": "word"} if i < 5 else {},
            covariates={"size": float(i)} if i != 11 else {},
            pair_id=f"p{i // 2}",
            metadata={"camera": "x"},
        )
        for i in range(n)
    ]


def imported(platform, samples, images):
    """A data set as an import leaves it."""
    dataset = Dataset.create("shops", None, samples, byte_source=InMemory(images))
    for content in images.values():
        platform.artifacts.put_bytes(content)
    return dataset, {
        "state": "ready",
        "digest": dataset.digest,
        "n_images": len(dataset),
        "class_names": dataset.class_names,
        "manifest_sha256": platform.artifacts.put_bytes(write_manifest(dataset)),
    }


@pytest.fixture
def images():
    return {str(i): encoded(picture(i, (60 + i, 40))) for i in range(12)}


@pytest.fixture
def shops(platform, images):
    """(the data set, its record)"""
    dataset, fields = imported(platform, samples_of(12), images)
    record = DatasetRecord(
        new_id("dat"), platform.project.id, "shops", platform.admin_user.id, now(), **fields
    )
    with platform.store.write() as tx:
        tx.datasets.add(record)
    return dataset, record


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user)) as opened:
        yield opened


def test_every_image_is_listed_once_in_the_order_of_ids_with_all_that_is_known(client, platform, shops):
    dataset, record = shops
    found = list(client.datasets.images(record))
    assert [i.id for i in found] == dataset.ids.tolist()
    assert [i.number for i in found] == list(range(12))
    assert tuple(i.sha256 for i in found) == dataset.bytes_sha256
    assert [(i.label, i.split, i.pair_id) for i in found] == [
        (s.label, s.split, s.pair_id) for s in dataset.samples
    ]
    assert found[0].groups == {"sticker": "word"}
    assert found[0].covariates == {"size": 0.0}
    assert found[0].metadata == {"camera": "x"}
    pages, cursor = [], None
    while True:
        params = {"limit": 5} | ({} if cursor is None else {"cursor": cursor})
        page = platform.admin.get(f"/v1/datasets/{record.id}/images", params=params).json()
        pages.append([i["number"] for i in page["items"]])
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize(
    ("filters", "keeps"),
    [
        ({"split": "select"}, lambda s: s.split == "select"),
        ({"label": "b", "split": "select"}, lambda s: s.label == "b" and s.split == "select"),
        ({"where": {"sticker": "word"}}, lambda s: s.groups.get("sticker") == "word"),
        ({"where": {"group_sticker": ""}}, lambda s: "sticker" not in s.groups),
        ({"where": {"sticker": "word", "pair_id": "p1"}}, lambda s: s.id[2:4] in ("02", "03")),
        ({"where": {"covariate_size": "q4"}}, lambda s: s.covariates.get("size", 0) > 7),
        ({"where": {"label": "a"}, "words": "A/0"}, lambda s: s.id.startswith("a/0")),
        ({"split": "train"}, lambda s: False),
    ],
)
def test_a_list_and_its_counts_are_narrowed_alike(client, shops, filters, keeps):
    dataset, record = shops
    wanted = [s for s in dataset.samples if keeps(s)]
    assert [i.id for i in client.datasets.images(record, **filters)] == [s.id for s in wanted]
    facets = client.datasets.facets(record, **filters)
    assert facets.n_images == len(wanted)
    assert {c.value: c.n for c in facets.label.values} == {
        label: n for label in "ab" if (n := sum(s.label == label for s in wanted))
    }


def test_facets_count_every_column(client, shops):
    _, record = shops
    facets = client.datasets.facets(record)
    assert (facets.dataset_id, facets.digest, facets.n_images) == (record.id, record.digest, 12)
    assert [(c.value, c.n) for c in facets.split.values] == [("confirm", 4), ("discover", 4), ("select", 4)]
    (sticker,) = facets.groups
    assert (sticker.column, sticker.n_values) == ("group_sticker", 1)
    assert [(c.value, c.n) for c in sticker.values] == [("", 7), ("word", 5)]
    (size,) = facets.covariates
    assert (size.column, size.n, size.low, size.high, size.mean) == ("covariate_size", 11, 0.0, 10.0, 5.0)
    assert [b.value for b in size.bins] == ["q1", "q2", "q3", "q4"]
    assert sum(b.n for b in size.bins) == 11


def test_a_column_that_is_not_there_is_refused_with_those_that_are(client, platform, shops):
    _, record = shops
    with pytest.raises(InvalidDataset, match=r"no column 'weather'.*group_sticker.*covariate_size"):
        list(client.datasets.images(record, where={"weather": "rain"}))
    answer = platform.admin.get(f"/v1/datasets/{record.id}/images", params={"where": "sticker"})
    assert (answer.status_code, answer.json()["reason"]) == (422, InvalidRequest.reason)


def test_an_image_is_found_by_id_number_record_flip_and_example(client, shops, images):
    dataset, record = shops
    sample = dataset.samples[7]
    listed = list(client.datasets.images(record))[7]
    flipped = FlippedImage(
        sample.id, "select", "a", "a", "b", "broken", False, True, 0.5, 0.5, 1.0, -1.0, -2.0, 0.1
    )
    example = TopImage(record.id, record.digest, 7, 1.0, None, 1.0, ((0.0,),))
    for image in (sample.id, 7, listed, flipped, example):
        assert client.datasets.image(record, image) == listed
        assert client.datasets.image_content(record, image) == images[sample.source]
        with Image.open(io.BytesIO(client.datasets.thumbnail(record, image))) as small:
            assert small.format == "JPEG"
            assert small.size == (60 + int(sample.source), 40)


def test_the_awaiting_client_sees_the_same(client, platform, shops):
    _, record = shops

    async def look():
        async with AsyncClient(platform.url, platform.token_of(platform.admin_user)) as waiting:
            found = [i async for i in waiting.datasets.images(record, label="a")]
            return found, await waiting.datasets.thumbnail(record, found[0])

    found, small = asyncio.run(look())
    assert found == list(client.datasets.images(record, label="a"))
    assert small == client.datasets.thumbnail(record, found[0])


def test_many_thumbnails_come_in_one_answer_in_the_order_asked_for(client, platform, shops):
    dataset, record = shops
    listed = list(client.datasets.images(record))
    example = TopImage(record.id, record.digest, 7, 1.0, None, 1.0, ((0.0,),))
    found = client.datasets.thumbnails(record, [5, listed[2], dataset.samples[9].id, 5])
    assert found == tuple(client.datasets.thumbnail(record, n) for n in (5, 2, 9, 5))
    assert client.datasets.thumbnails(record, [example]) == (client.datasets.thumbnail(record, 7),)
    assert client.datasets.thumbnails(record, []) == ()
    with pytest.raises(UnknownImage):
        client.datasets.thumbnails(record, [1, 99])
    with pytest.raises(InvalidRequest, match="several contents"):
        client.datasets.thumbnails(record, [1, example])
    body = {"images": [{"name": "1", "by": "number"}] * 201}
    assert platform.admin.post(f"/v1/datasets/{record.id}/images:thumbnails", json=body).status_code == 422


def test_large_images_have_small_thumbnails_that_a_browser_keeps_for_ever(platform):
    content = encoded(picture(3, (900, 600)), "JPEG")
    _, fields = imported(platform, [Sample("one", "one")], {"one": content})
    made = platform.admin.post("/v1/datasets", json={"name": "large"}).json()["id"]
    with platform.store.write() as tx:
        tx.datasets.update(made, None, **fields)
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"/v1/datasets/{made}/images/{sha256}/thumbnail"
    first = platform.admin.get(path, params={"by": "sha256"})
    with Image.open(io.BytesIO(first.content)) as small:
        assert small.size == (256, 171)
    assert "immutable" in first.headers["cache-control"]
    assert first.headers["cache-control"].startswith("private")
    assert first.headers["x-content-type-options"] == "nosniff"
    again = platform.admin.get(
        path, params={"by": "sha256"}, headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    # An id may come to mean another image, so a browser has to ask again.
    by_id = platform.admin.get(f"/v1/datasets/{made}/images/one/thumbnail")
    assert "immutable" not in by_id.headers["cache-control"]
    assert by_id.headers["etag"] == first.headers["etag"]
    pinned = platform.admin.get(
        f"/v1/datasets/{made}/images/one/content", params={"digest": fields["digest"]}
    )
    assert (pinned.content, pinned.headers["content-type"]) == (content, "image/jpeg")
    assert "immutable" in pinned.headers["cache-control"]


def test_an_opened_image_is_one_of_the_project_like_an_uploaded_one(client, shops, images):
    dataset, record = shops
    opened = client.datasets.open_image(record, 4)
    content = images[dataset.samples[4].source]
    assert opened.sha256 == hashlib.sha256(content).hexdigest()
    assert (opened.width, opened.height) == (60 + int(dataset.samples[4].source), 40)
    assert opened.filename == dataset.samples[4].id.split("/")[1]
    assert client.images.content(opened) == content
    assert client.datasets.open_image(record, dataset.samples[4].id) == opened
    assert client.images.upload(content) == opened
    assert list(client.images.list()) == [opened]


def test_what_is_not_there_is_said_to_be_unknown(client, shops):
    _, record = shops
    for image in (12, "nothing", "a/00", "x" * 64):
        with pytest.raises(UnknownImage):
            client.datasets.thumbnail(record, image)
    with pytest.raises(InvalidRequest, match="no number"):
        client.datasets._driver.call(
            client._wire.fetch(f"/v1/datasets/{record.id}/images/-1", {"by": "number"})
        )
    with pytest.raises(UnknownDataset):
        client.datasets.facets(record, digest="0" * 64)
    with pytest.raises(UnknownDataset):
        list(client.datasets.images("dat_none"))
    empty = client.datasets.create("empty")
    with pytest.raises(InvalidDataset, match="import images into it first"):
        list(client.datasets.images(empty))


def test_a_cursor_of_other_content_is_refused(client, platform, shops, images):
    _, record = shops
    path = f"/v1/datasets/{record.id}/images"
    cursor = platform.admin.get(path, params={"limit": 2}).json()["next_cursor"]
    _, fields = imported(platform, samples_of(6), images)
    with platform.store.write() as tx:
        tx.datasets.update(record.id, None, **fields)
    answer = platform.admin.get(path, params={"limit": 2, "cursor": cursor})
    assert (answer.status_code, answer.json()["reason"]) == (422, InvalidRequest.reason)
    assert "another content" in answer.json()["detail"]
    assert len(list(client.datasets.images(record))) == 6


def test_strangers_see_nothing_and_viewers_open_nothing(platform, shops):
    _, record = shops
    with Client(platform.url, platform.token_of(platform.new_user("Eve"))) as stranger:
        for ask in (
            lambda: list(stranger.datasets.images(record)),
            lambda: stranger.datasets.facets(record),
            lambda: stranger.datasets.thumbnail(record, 0),
            lambda: stranger.datasets.image_content(record, 0),
            lambda: stranger.datasets.open_image(record, 0),
        ):
            with pytest.raises(UnknownDataset):
                ask()
    with Client(platform.url, platform.token_of(platform.new_user("Vera", "viewer"))) as viewer:
        assert viewer.datasets.thumbnail(record, 0)
        with pytest.raises(Forbidden):
            viewer.datasets.open_image(record, 0)
