"""Described latents over HTTP and through the SDK, from the demo model and a small demo world."""

import dataclasses
import io

import numpy as np
import pytest
from tests.gateway.engine import DEMO_MODEL, DEMO_SAE

from fulcrum.client import Client
from fulcrum.datasets.description import ConceptDescription
from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import demo_model, demo_sae
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.domain.errors import InvalidRequest, LatentOutOfRange, UnknownDescription, UnknownSae
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import (
    ConceptRecord,
    DatasetRecord,
    DescriptionRecord,
    IndexRecord,
    ModelRecord,
    SaeRecord,
)
from fulcrum.engine.describing import describe_latents
from fulcrum.engine.indexing import open_or_build_index

SMALL = {"discover": 24, "select": 8, "confirm": 12}
WORDS = ("a dog", "a cat", "a car", "a tree", "text", "red", "a house")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return load_dataset(write_demo_dataset(folder, n_pairs=SMALL, n_right=4, n_neutral=4, n_cues=2, seed=5))


@pytest.fixture(scope="module")
def made(local_engine, small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    steerable = local_engine.residency.steerable(demo_model(), demo_sae())
    index = open_or_build_index(steerable, small_world, folder, images_per_shard=64)
    path = folder / "description.arrays"
    describe_latents(steerable, small_world, index, path, WORDS, n_top=6)
    return index, path


@dataclasses.dataclass
class Kept:
    sae: SaeRecord
    index: IndexRecord
    description: DescriptionRecord
    columns: ConceptDescription


@pytest.fixture
def kept(platform, artifacts, small_world, made):
    index, path = made
    p, u = platform.project.id, platform.admin_user.id
    model = ModelRecord(new_id("mdl"), p, "demo", ModelRef(DEMO_MODEL), u, now())
    sae = SaeRecord(new_id("sae"), p, "mid", model.id, DEMO_SAE, u, now())
    dataset = DatasetRecord(new_id("dat"), p, "small", u, now(), "", "ready", small_world.digest)
    files = {f.name: artifacts.put_bytes(f.read_bytes()) for f in index.folder.iterdir()}
    indexed = IndexRecord(
        new_id("idx"), p, dataset.id, sae.id, index.key.sha256, small_world.digest, index.key.model_sha256,
        index.key.sae_sha256, len(small_world), 0, index.size_bytes, files, u, now(),
    )  # fmt: skip
    columns = ConceptDescription.open(path)
    record = DescriptionRecord(
        new_id("dsc"), p, sae.id, dataset.id, indexed.id, "k" * 64, artifacts.put_bytes(path.read_bytes()),
        len(columns), len(WORDS), path.stat().st_size, u, now(),
    )  # fmt: skip
    with platform.store.write() as tx:
        tx.models.add(model)
        tx.saes.add(sae)
        tx.datasets.add(dataset)
        tx.indexes.add(indexed)
        tx.descriptions.add(record)
        tx.concepts.put_auto(
            [
                ConceptRecord(
                    new_id("con"), p, sae.id, int(columns["latents"][row]), u, now(), columns.label(row), "auto",
                    float(columns["label_scores"][row, 0]),
                )
                for row in np.flatnonzero(columns.has_embedding).tolist()
            ]
        )  # fmt: skip
    return Kept(sae, indexed, record, columns)


@pytest.fixture
def client(platform):
    token = platform.token_of(platform.admin_user)
    with Client(platform.url, token) as opened:
        yield opened


def test_indexes_and_descriptions_are_listed_as_they_were_kept(client, kept):
    assert list(client.latents.indexes(sae=kept.sae)) == [kept.index]
    assert list(client.latents.indexes(dataset="dat_other")) == []
    assert list(client.latents.descriptions(kept.sae)) == [kept.description]


@pytest.mark.parametrize("sort", ["image_rate", "clarity", "label_score", "purity", "latent"])
@pytest.mark.parametrize("descending", [True, False])
def test_every_latent_that_fires_is_listed_once_in_order_with_unknown_values_last(
    client, kept, sort, descending
):
    found = list(client.latents.list(kept.sae, sort=sort, descending=descending))
    assert sorted(x.latent for x in found) == kept.columns["latents"].tolist()
    values = [getattr(x, sort) for x in found]
    known = [v for v in values if v is not None]
    assert known == sorted(known, reverse=descending)
    assert all(v is None for v in values[len(known) :])


def test_a_list_is_narrowed_by_words_source_and_rate(client, kept):
    everything = list(client.latents.list(kept.sae))
    dogs = list(client.latents.list(kept.sae, words="A DOG"))
    assert {x.latent for x in dogs} == {x.latent for x in everything if x.label and "a dog" in x.label}
    rare = list(client.latents.list(kept.sae, image_rate_max=0.05))
    assert {x.latent for x in rare} == {x.latent for x in everything if x.image_rate <= 0.05}
    latent = everything[0].latent
    client.concepts.put(kept.sae, latent, "my own word")
    (mine,) = client.latents.list(kept.sae, labelled_by="person")
    assert (mine.latent, mine.label, mine.label_source, mine.label_score) == (
        latent, "my own word", "person", None
    )  # fmt: skip


def test_a_latent_is_told_whole_with_the_history_of_its_label(client, kept, made):
    index, _ = made
    row = int(np.argmax(kept.columns["n_images_active"]))
    latent = int(kept.columns["latents"][row])
    client.concepts.put(kept.sae, latent, "everywhere")
    found = client.latents.get(kept.sae, latent)
    assert found.summary.label == "everywhere"
    assert found.concept is not None
    assert found.concept.history[0].label_source == "auto"
    assert sum(found.histogram.counts) == index.statistics.n_tokens_active[latent]
    assert len(found.histogram.edges) == len(found.histogram.counts) + 1
    assert found.candidates[0].text == kept.columns.label(row)
    assert sum(c.count for c in found.classes) <= 6
    assert found.summary.dominant_class == found.classes[0].class_name
    assert all(0 < n.n_joint <= index.layout.n_images for n in found.cofiring)
    assert found.decoder[0].score == max(n.score for n in found.decoder)


def test_examples_show_where_in_the_image_the_latent_is_stored(client, kept, made):
    index, _ = made
    latent = int(kept.columns["latents"][int(np.argmax(kept.columns["n_images_active"]))])
    for by in ("max", "mean"):
        found = client.latents.top_images(kept.sae, latent, by=by)
        images, values = index.top_images(latent, 6, by=by)
        assert [x.image for x in found] == images.tolist()
        assert [x.value for x in found] == pytest.approx(values.tolist())
    best = client.latents.top_images(kept.sae, latent, n=1)[0]
    heat = np.array(best.heatmap)
    assert heat.shape == kept.columns.found_in.grid
    assert max(heat.max(), best.on_cls) == pytest.approx(best.value)
    assert best.peak_patch is None or heat.ravel()[best.peak_patch] == heat.max()


def test_a_page_of_attributions_asks_once_for_many_latents(client, kept):
    wanted = [int(n) for n in kept.columns["latents"][[5, 2, 9]]]
    cards = client.latents.cards(kept.sae, wanted, n_examples=2)
    assert [c.summary.latent for c in cards] == wanted
    for card in cards:
        assert card.examples == client.latents.top_images(kept.sae, card.summary.latent, n=2)


def test_a_latent_that_never_fires_is_told_and_one_beyond_the_sae_refused(client, kept):
    everyone = set(range(kept.columns.found_in.d_sae))
    silent = min(everyone - set(kept.columns["latents"].tolist()))
    found = client.latents.get(kept.sae, silent)
    assert (found.summary.n_images_active, found.histogram.counts, found.classes) == (0, (), ())
    assert client.latents.top_images(kept.sae, silent) == ()
    with pytest.raises(LatentOutOfRange):
        client.latents.get(kept.sae, kept.columns.found_in.d_sae)


def test_the_map_holds_every_latent_with_a_meaning(client, kept):
    found = client.latents.map(kept.sae)
    assert len(found.latents) == kept.columns.has_embedding.sum()
    assert len(found.x) == len(found.y) == len(found.labels) == len(found.image_rate) == len(found.latents)
    assert max(map(abs, found.x + found.y)) == pytest.approx(1)


def test_words_find_the_latents_that_they_label(client, kept):
    hits = client.latents.search(kept.sae, "a dog", n=200)
    scores = {h.latent: h.score for h in hits}
    named = [r for r in np.flatnonzero(kept.columns.has_embedding) if kept.columns.label(r) == "a dog"]
    for row in named:
        if (latent := int(kept.columns["latents"][row])) in scores:
            assert scores[latent] == pytest.approx(kept.columns["label_scores"][row, 0], abs=1e-4)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_an_image_finds_its_latents_and_those_of_like_meaning(client, kept, made, small_world):
    index, _ = made
    sample = small_world.samples[3]
    image = client.images.upload(io.BytesIO(small_world.read_bytes(sample)))
    hits = client.latents.search(kept.sae, image, n=5)
    active = set(index.image(3).latents.tolist())
    assert {h.latent for h in hits} <= active
    alike = client.latents.search(kept.sae, image, by="embedding", n=5)
    assert len(alike) == 5
    assert all(-1 <= h.score <= 1 for h in alike)


def test_a_search_for_nothing_or_for_two_things_is_refused(platform, kept):
    for body in ({}, {"text": "a", "image_id": "img_1"}):
        found = platform.admin.post(f"/v1/saes/{kept.sae.id}:search", json=body)
        assert found.status_code == 422
        assert found.json()["reason"] == InvalidRequest.reason


def test_an_sae_without_description_says_what_to_do_and_strangers_see_nothing(client, platform, kept):
    with pytest.raises(UnknownDescription, match="index a data set"):
        client.latents.map(kept.sae, dataset="dat_other")
    stranger = Client(platform.url, platform.token_of(platform.new_user("Eve")))
    with stranger, pytest.raises(UnknownSae):
        stranger.latents.get(kept.sae, 1)
