import hashlib

import numpy as np
import pytest

from fulcrum.datasets.index import LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.opening import link_files, open_linked_index
from fulcrum.datasets.index.reader import shard_name
from fulcrum.engine.dataset_runs import prefix_of
from fulcrum.engine.image_batches import BATCH_SIZE, image_batches
from fulcrum.engine.indexing import (
    index_key,
    index_layout,
    index_shard,
    open_or_build_index,
    shard_size,
)

PER_SHARD = 64


@pytest.fixture(scope="module")
def shards(steerable, small_world, tmp_path_factory):
    """Every shard computed alone, the last one first."""
    layout = index_layout(steerable, small_world, PER_SHARD)
    assert layout.n_shards > 1
    return {
        shard: index_shard(steerable, small_world, layout, shard, tmp_path_factory.mktemp("shard"))
        for shard in reversed(range(layout.n_shards))
    }


def finished(steerable, dataset, layout, files, folder):
    """The index of shards that were computed elsewhere."""
    by_sha256 = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files.values()}
    named = {
        shard_name(shard): hashlib.sha256(path.read_bytes()).hexdigest() for shard, path in files.items()
    }
    link_files(named, by_sha256.__getitem__, folder)
    key = index_key(steerable, dataset)
    keys = key.shard_keys(layout, dataset.bytes_sha256)
    return LatentIndexWriter(folder, key, layout, shard_keys=keys).finish()


def test_shards_that_were_computed_alone_are_the_bytes_of_a_whole_run(
    steerable, small_world, shards, tmp_path
):
    whole = open_or_build_index(steerable, small_world, tmp_path, images_per_shard=PER_SHARD)
    for shard, path in shards.items():
        assert path.read_bytes() == (whole.folder / shard_name(shard)).read_bytes()


def test_the_size_of_a_shard_changes_no_number(steerable, small_world, shards, index, tmp_path):
    layout = index_layout(steerable, small_world, PER_SHARD)
    other = finished(steerable, small_world, layout, shards, tmp_path / "linked")
    assert index.layout.n_shards == 1
    everyone = np.arange(len(small_world))
    ours, theirs = other.images(everyone), index.images(everyone)
    assert np.array_equal(ours.offsets, theirs.offsets)
    assert np.array_equal(ours.latents, theirs.latents)
    assert np.array_equal(ours.values, theirs.values)
    assert np.array_equal(other.embeddings(), index.embeddings())
    assert np.array_equal(other.statistics.histogram, index.statistics.histogram)


def test_the_shards_of_a_data_set_that_grew_at_its_end_keep_their_keys_and_bytes(
    steerable, small_world, shards, tmp_path
):
    part = small_world.subset(range(PER_SHARD + 7))
    layout = index_layout(steerable, part, PER_SHARD)
    before = index_key(steerable, part).shard_keys(layout, part.bytes_sha256)
    after = index_key(steerable, small_world).shard_keys(
        index_layout(steerable, small_world, PER_SHARD), small_world.bytes_sha256
    )
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert index_shard(steerable, part, layout, 0, tmp_path).read_bytes() == shards[0].read_bytes()


def test_kept_activations_are_those_that_the_prefix_gives(steerable, small_world, tmp_path):
    budget = 70 * steerable.tower.n_tokens * steerable.sae.config.d_in * 4 + 1
    layout = index_layout(steerable, small_world, PER_SHARD, keep_activations_bytes=budget)
    files = {}
    for shard in range(2):
        folder = tmp_path / str(shard)
        folder.mkdir()
        files[shard] = index_shard(steerable, small_world, layout, shard, folder)
    (batch,) = image_batches(steerable.loaded, small_world, np.arange(64, 70), BATCH_SIZE)
    expected = prefix_of(steerable, batch).x
    key = index_key(steerable, small_world)
    keys = key.shard_keys(layout, small_world.bytes_sha256)
    assert (
        keys[0]
        != key.shard_keys(index_layout(steerable, small_world, PER_SHARD), small_world.bytes_sha256)[0]
    )
    writer = LatentIndexWriter(tmp_path / "all", key, layout, shard_keys=keys)
    for shard in range(layout.n_shards):
        if shard not in files:
            folder = tmp_path / f"more{shard}"
            folder.mkdir()
            files[shard] = index_shard(steerable, small_world, layout, shard, folder)
    for shard, path in files.items():
        (tmp_path / "all" / shard_name(shard)).write_bytes(path.read_bytes())
    index = writer.finish()
    for row, number in enumerate(range(64, 70)):
        assert np.array_equal(index.activations(number), expected[row].numpy())
    assert index.activations(70) is None


def test_an_index_of_artifacts_opens_from_links_and_again_after_its_folder_was_spoilt(
    steerable, small_world, shards, tmp_path
):
    layout = index_layout(steerable, small_world, PER_SHARD)
    made = finished(steerable, small_world, layout, shards, tmp_path / "made")
    places = {}
    for path in made.folder.glob("*.*"):
        places[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    by_sha256 = {sha256: made.folder / name for name, sha256 in places.items()}
    cache, key = tmp_path / "cache", made.key.sha256
    opened = open_linked_index(places, by_sha256.__getitem__, cache, key, made.key)
    assert isinstance(opened, LatentIndex)
    assert np.array_equal(opened.embeddings(), made.embeddings())
    (cache / key / "index.json").unlink()
    again = open_linked_index(places, by_sha256.__getitem__, cache, key)
    assert again.layout == made.layout
    assert [p.name for p in cache.iterdir()] == [key]


def test_shards_are_many_enough_to_share_and_few_enough_to_read():
    for n in (1, 1_000, 10_000, 100_000, 1_000_000):
        assert shard_size(n) % BATCH_SIZE == 0
        assert -(-n // shard_size(n)) <= 512
