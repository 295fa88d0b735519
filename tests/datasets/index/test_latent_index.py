"""The index against a dense array of the same latents, which is its slow twin."""

import dataclasses
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fulcrum.datasets.index import IndexKey, IndexLayout, LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.statistics import bin_edges
from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import (
    ComputationFailed,
    CorruptIndex,
    InvalidEdit,
    InvalidSettings,
    LatentOutOfRange,
    NotFound,
)

KEY = IndexKey("m" * 64, "s" * 64, "visual.blocks.3.resid_post", "p" * 64, "d" * 64)


def csr(dense):
    """(images, tokens, d_sae) to CSR over images x tokens."""
    rows = dense.reshape(-1, dense.shape[-1])
    tokens, latents = np.nonzero(rows > 0)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(tokens, minlength=len(rows)))])
    return offsets, latents, rows[tokens, latents]


def layout_of(dense, **changes):
    n_images, n_tokens, d_sae = dense.shape
    options = {"n_images": n_images, "n_tokens": n_tokens, "d_sae": d_sae, "images_per_shard": 3, **changes}
    return IndexLayout(**options)


def build(folder, dense, *, batch=2, key=KEY, embeddings=None, **changes):
    writer = LatentIndexWriter(folder, key, layout_of(dense, **changes))
    feed(writer, dense, batch=batch, embeddings=embeddings)
    return writer.finish()


def feed(writer, dense, *, batch=2, embeddings=None, start=0, stop=None):
    for first in range(start, stop or len(dense), batch):
        numbers = np.arange(first, min(first + batch, stop or len(dense)))
        rows = None if embeddings is None else embeddings[numbers]
        writer.add(numbers, *csr(dense[numbers]), rows)


def dense_of(latents, shape):
    """ImageLatents back to (images, tokens, d_sae)."""
    dense = np.zeros((shape[0] * shape[1], shape[2]), dtype=np.float32)
    rows = np.repeat(np.arange(len(dense)), np.diff(latents.offsets))
    dense[rows, latents.latents] = latents.values
    return dense.reshape(shape)


def random_dense(seed=0, shape=(11, 7, 40), density=0.06):
    rng = np.random.default_rng(seed)
    return (rng.gamma(2.0, size=shape) * (rng.random(shape) < density)).astype(np.float32)


shapes = st.tuples(st.integers(1, 9), st.integers(2, 6), st.integers(1, 12))
values = st.one_of(st.just(0.0), st.just(0.0), st.floats(2.0**-120, 1000, width=32))
sparse_arrays = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


def in_scope(dense, scope, has_cls):
    match scope.kind:
        case "all":
            return dense
        case "cls":
            return dense[:, :1]
        case "patches":
            return dense[:, has_cls:]
        case _:
            return dense[:, [p + has_cls for p in scope.patches]]


@settings(max_examples=30, deadline=None)
@given(dense=sparse_arrays, batch=st.integers(1, 5), per_shard=st.integers(1, 5))
def test_both_ways_round_give_back_the_dense_array(dense, batch, per_shard):
    with TemporaryDirectory() as folder:
        index = build(folder, dense, batch=batch, images_per_shard=per_shard)
        np.testing.assert_array_equal(dense_of(index.images(range(len(dense))), dense.shape), dense)
        for latent in range(dense.shape[2]):
            found = index.postings(latent)
            back = np.zeros(dense.shape[:2], dtype=np.float32)
            back[np.repeat(found.images, np.diff(found.offsets)), found.tokens] = found.values
            np.testing.assert_array_equal(back, dense[:, :, latent])
            np.testing.assert_array_equal(found.images, np.flatnonzero(dense[:, :, latent].any(axis=1)))


@settings(max_examples=50, deadline=None)
@given(dense=sparse_arrays, has_cls=st.booleans(), data=st.data())
def test_affected_images_are_exactly_those_of_the_dense_array(dense, has_cls, data):
    n_patches = dense.shape[1] - has_cls
    patches = st.lists(st.integers(0, n_patches - 1), min_size=1, max_size=3, unique=True)
    kinds = ["all", "patches", *(["cls"] if has_cls else [])]
    scope = data.draw(
        st.one_of(st.sampled_from(kinds).map(Scope), patches.map(lambda p: Scope("patch_list", tuple(p))))
    )
    latents = data.draw(st.lists(st.integers(0, dense.shape[2] - 1), max_size=4, unique=True))
    # Thresholds that are values of the array itself probe the strict comparison.
    limits = [data.draw(st.sampled_from([0.0, 1.0, *dense.ravel()[:20].tolist()])) for _ in latents]
    with TemporaryDirectory() as folder:
        index = build(folder, dense, has_cls=has_cls)
        part = in_scope(dense, scope, has_cls)[:, :, latents]
        fires = (part > 0).any(axis=(1, 2))
        np.testing.assert_array_equal(index.affected(latents, scope), np.flatnonzero(fires))
        above = (part > np.array(limits)).any(axis=(1, 2))
        np.testing.assert_array_equal(index.affected(latents, scope, limits), np.flatnonzero(above))
        for latent in latents:
            images, maxima = index.image_max(latent, scope)
            expected = in_scope(dense, scope, has_cls)[:, :, latent].max(axis=1)
            np.testing.assert_array_equal(images, np.flatnonzero(expected))
            np.testing.assert_array_equal(maxima, expected[expected > 0])


@settings(max_examples=20, deadline=None)
@given(dense=sparse_arrays)
def test_statistics_are_those_of_the_dense_array(dense):
    with TemporaryDirectory() as folder:
        statistics = build(folder, dense).statistics
        exact = dense.astype(np.float64)
        np.testing.assert_allclose(statistics.image_rate, (dense.max(axis=1) > 0).mean(axis=0))
        np.testing.assert_allclose(statistics.token_rate, (dense > 0).mean(axis=(0, 1)))
        np.testing.assert_array_equal(statistics.max, dense.max(axis=(0, 1)))
        np.testing.assert_allclose(statistics.mean, exact.mean(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(statistics.sum_of_squares, (exact**2).sum(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_array_equal(statistics.histogram.sum(axis=1), (dense > 0).sum(axis=(0, 1)))


def test_a_histogram_bin_counts_the_values_between_its_edges():
    dense = random_dense(shape=(20, 9, 5), density=0.5)
    with TemporaryDirectory() as folder:
        histogram = np.array(build(folder, dense).statistics.histogram)
    for latent in range(5):
        active = dense[:, :, latent][dense[:, :, latent] > 0]
        np.testing.assert_array_equal(histogram[latent], np.histogram(active, bin_edges())[0])


def test_the_quantile_of_the_statistics_lies_within_a_quarter_octave_of_the_exact_one():
    dense = random_dense(shape=(60, 9, 5), density=0.5)
    with TemporaryDirectory() as folder:
        index = build(folder, dense)
        for q in (0.5, 0.9, 0.99):
            for latent in range(5):
                active = dense[:, :, latent][dense[:, :, latent] > 0].astype(np.float64)
                assert index.quantile(latent, q) == pytest.approx(np.quantile(active, q), rel=1e-12)
                ratio = index.statistics.quantile(q)[latent] / np.quantile(active, q, method="inverted_cdf")
                assert 2**-0.33 < ratio < 2**0.33
        assert np.all(index.statistics.p99 <= index.statistics.max)


def test_top_images_come_best_first_and_ties_by_number(tmp_path):
    dense = np.zeros((6, 3, 2), dtype=np.float32)
    dense[:, 1, 0] = [1, 3, 0, 3, 2, 5]
    dense[4, 2, 0] = 9.5
    dense[0, 0, 1] = 1
    index = build(tmp_path, dense)
    numbers, maxima = index.top_images(0, 4)
    assert numbers.tolist() == [4, 5, 1, 3]
    assert maxima.tolist() == [9.5, 5, 3, 3]
    numbers, means = index.top_images(0, 2, by="mean")
    assert numbers.tolist() == [4, 5]
    np.testing.assert_allclose(means, [11.5 / 3, 5 / 3])
    assert index.top_images(1, 5, Scope("cls"))[0].tolist() == [0]
    assert index.top_images(1, 5, Scope("patches"))[0].tolist() == []


def test_a_token_gets_its_latents_in_ascending_order(tmp_path):
    dense = random_dense()
    index = build(tmp_path, dense)
    for number in (0, 5, 10):
        one = index.image(number)
        assert one.offsets.shape == (8,)
        assert one.d_sae == 40
        for token in range(7):
            latents = one.latents[one.offsets[token] : one.offsets[token + 1]]
            np.testing.assert_array_equal(latents, np.flatnonzero(dense[number, token]))


def test_images_come_in_the_order_in_which_they_are_asked_for(tmp_path):
    dense = random_dense()
    numbers = [9, 0, 4, 9]
    index = build(tmp_path, dense)
    np.testing.assert_array_equal(dense_of(index.images(numbers), (4, 7, 40)), dense[numbers])
    assert index.images([]).offsets.tolist() == [0]


def test_a_wide_dictionary_and_many_tokens_keep_their_numbers(tmp_path):
    # Above 2**8 tokens and 2**16 latents the compact types change.
    rng = np.random.default_rng(1)
    layout = IndexLayout(n_images=2, n_tokens=300, d_sae=70_000)
    latents = np.sort(rng.choice(70_000, size=(600, 2), replace=True), axis=1)
    latents[:, 1] += latents[:, 0] == latents[:, 1]
    latents[-1] = [69_998, 69_999]
    writer = LatentIndexWriter(tmp_path, KEY, layout)
    writer.add([0, 1], np.arange(0, 1201, 2), latents.ravel(), np.ones(1200))
    index = writer.finish()
    np.testing.assert_array_equal(index.images([0, 1]).latents, latents.ravel())
    assert index.postings(69_999).tokens.tolist()[-1] == 299


def test_values_are_read_from_memory_maps_and_opening_reads_none(tmp_path):
    index = build(tmp_path, random_dense())
    assert isinstance(index._shard(0)["values"], np.memmap)
    assert not index._shard(0)["values"].flags.writeable
    assert isinstance(index.statistics.sum, np.memmap)


def test_float16_values_keep_what_fires_and_halve_the_size(tmp_path):
    dense = np.zeros((4, 3, 5), dtype=np.float32)
    dense[0, 1, 2], dense[1, 2, 2], dense[2, 0, 4] = 1e-12, 1e6, 0.1
    index = build(tmp_path, dense, value_dtype="float16")
    assert index.affected([2]).tolist() == [0, 1]
    assert index.image_max(2)[1].tolist() == [np.float32(2.0**-24), 65504.0]
    assert index.image(2).values.tolist() == [float(np.float16(0.1))]


def test_embeddings_and_logits_come_back_as_they_were_given(tmp_path):
    dense = random_dense()
    embeddings = np.random.default_rng(2).normal(size=(11, 4)).astype(np.float32)
    index = build(tmp_path, dense, embeddings=embeddings, d_embed=4)
    np.testing.assert_array_equal(index.embeddings(), embeddings)
    np.testing.assert_array_equal(index.embeddings([10, 2, 2]), embeddings[[10, 2, 2]])
    assert index.logits("a" * 64) is None
    logits = np.arange(33, dtype=np.float32).reshape(11, 3)
    index.put_logits("a" * 64, logits)
    again = LatentIndex.open(tmp_path, KEY).logits("a" * 64)
    np.testing.assert_array_equal(again, logits)
    with pytest.raises(InvalidSettings, match=r"\(11, n_classes\)"):
        index.put_logits("b" * 64, logits[:5])
    with pytest.raises(InvalidSettings, match="hex digest"):
        index.logits("../" + "a" * 20)


def test_activations_are_kept_for_the_wanted_images_up_to_the_budget(tmp_path):
    dense = random_dense()
    x = np.random.default_rng(3).normal(size=(11, 7, 4)).astype(np.float32)
    layout = layout_of(dense, d_in=4, activation_budget_bytes=3 * 7 * 4 * 4 + 5)
    writer = LatentIndexWriter(tmp_path, KEY, layout, keep=[9, 1, 5, 6])
    for first in range(0, 11, 2):
        numbers = np.arange(first, min(first + 2, 11))
        keeps = writer.keeps(numbers)
        rows = x[numbers[keeps]]
        writer.add(numbers, *csr(dense[numbers]), None, rows if keeps.any() else None)
    index = writer.finish()
    kept = {n: index.activations(n) for n in range(11)}
    assert [n for n, a in kept.items() if a is not None] == [1, 5, 9]
    np.testing.assert_array_equal(kept[5], x[5])
    assert index.bytes_per_image["activations"] >= 3 * 7 * 4 * 4 / 11


def test_bytes_per_image_add_up_to_the_files(tmp_path):
    index = build(tmp_path, random_dense(shape=(60, 7, 40)), images_per_shard=30)
    sizes = index.bytes_per_image
    files = sum(f.stat().st_size for f in tmp_path.glob("*.arrays")) / 60
    assert sizes["total"] == files
    assert 0 < sizes["latents"] + sizes["postings"] < files


def index_bytes(folder):
    return {f.name: f.read_bytes() for f in sorted(Path(folder).iterdir())}


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "foreign", "leftover"])
def test_a_build_that_was_killed_resumes_to_the_identical_index(tmp_path, damage):
    dense = random_dense()
    build(tmp_path / "whole", dense)
    broken = tmp_path / "broken"
    writer = LatentIndexWriter(broken, KEY, layout_of(dense))
    feed(writer, dense, stop=8)  # shards 0 and 1 are finished, shard 2 is half collected
    shard = broken / "shard-000001.arrays"
    match damage:
        case "missing":
            shard.unlink()
        case "truncated":
            shard.write_bytes(shard.read_bytes()[:-70])
        case "altered":
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(bytes(content))
        case "foreign":
            shutil.copy(broken / "shard-000000.arrays", shard)
        case "leftover":
            (broken / ".shard-000002.arrays.1.tmp").write_bytes(b"half")
    again = LatentIndexWriter(broken, KEY, layout_of(dense))
    todo = again.todo()
    assert todo == [range(6, 9), range(9, 11)] if damage == "leftover" else todo[0] == range(3, 6)
    for images in todo:
        feed(again, dense, start=images.start, stop=images.stop)
    again.finish()
    assert index_bytes(broken) == index_bytes(tmp_path / "whole")


def test_two_writers_may_fill_different_shards(tmp_path):
    dense = random_dense()
    first, second = (LatentIndexWriter(tmp_path / "two", KEY, layout_of(dense)) for _ in range(2))
    feed(second, dense, start=6)
    feed(first, dense, stop=6)
    build(tmp_path / "one", dense)
    first.finish()
    assert index_bytes(tmp_path / "two") == index_bytes(tmp_path / "one")


def test_images_of_finished_shards_are_skipped_when_all_are_fed_again(tmp_path):
    dense = random_dense()
    feed(LatentIndexWriter(tmp_path, KEY, layout_of(dense)), dense, stop=6)
    writer = LatentIndexWriter(tmp_path, KEY, layout_of(dense))
    feed(writer, dense, batch=4)
    np.testing.assert_array_equal(dense_of(writer.finish().images(range(11)), dense.shape), dense)


def test_an_unfinished_index_cannot_be_finished_or_opened(tmp_path):
    dense = random_dense()
    writer = LatentIndexWriter(tmp_path, KEY, layout_of(dense))
    feed(writer, dense, stop=6)
    with pytest.raises(CorruptIndex, match=r"2 of 4 shards are missing, first: images 6 \.\. 8"):
        writer.finish()
    with pytest.raises(CorruptIndex, match="incomplete"):
        LatentIndex.open(tmp_path)
    with pytest.raises(NotFound, match="no latent index"):
        LatentIndex.open(tmp_path / "nowhere")


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["shard-000001.arrays", "statistics.arrays", "index.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed", "emptied"])
def test_a_damaged_index_is_refused(tmp_path, name, damage):
    build(tmp_path, random_dense())
    path = tmp_path / name
    match damage:
        case "flipped" if name == "index.json":
            path.write_text(path.read_text().replace('"n_images": 11', '"n_images": 12'))
        case "flipped":
            flip_last_byte(path)
        case "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
    with pytest.raises(CorruptIndex):
        LatentIndex.open(tmp_path)


def test_an_exchanged_shard_is_noticed_without_reading_it(tmp_path):
    build(tmp_path / "a", random_dense(0))
    build(tmp_path / "b", random_dense(0) * 2)
    shutil.copy(tmp_path / "b" / "shard-000000.arrays", tmp_path / "a" / "shard-000000.arrays")
    with pytest.raises(CorruptIndex, match="not the file"):
        LatentIndex.open(tmp_path / "a", verify=False)


def test_an_altered_value_is_found_by_verify_when_opening_did_not_look(tmp_path):
    build(tmp_path, random_dense())
    flip_last_byte(tmp_path / "shard-000001.arrays")
    index = LatentIndex.open(tmp_path, verify=False)
    with pytest.raises(CorruptIndex, match="altered"):
        index.verify()


def test_an_index_of_another_sae_or_data_set_is_refused(tmp_path):
    dense = random_dense()
    build(tmp_path, dense)
    other = dataclasses.replace(KEY, sae_sha256="x" * 64)
    with pytest.raises(CorruptIndex, match="another sae_sha256"):
        LatentIndex.open(tmp_path, other)
    with pytest.raises(InvalidSettings, match="another model, SAE, data set or layout"):
        LatentIndexWriter(tmp_path, other, layout_of(dense))


def test_an_index_of_another_version_is_refused(tmp_path):
    build(tmp_path, random_dense())
    content = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(CorruptIndex, match="version 99"):
        LatentIndex.open(tmp_path)


def test_input_that_cannot_be_meant_is_refused(tmp_path):
    layout = IndexLayout(n_images=4, n_tokens=2, d_sae=5, images_per_shard=4)
    writer = LatentIndexWriter(tmp_path, KEY, layout)
    one = np.array([0, 1, 1])
    with pytest.raises(LatentOutOfRange, match=r"0 \.\. 4"):
        writer.add([0], one, [5], [1.0])
    with pytest.raises(ComputationFailed, match="not finite"):
        writer.add([0], one, [1], [np.nan])
    with pytest.raises(InvalidSettings, match="value > 0"):
        writer.add([0], one, [1], [0.0])
    with pytest.raises(InvalidSettings, match="twice"):
        writer.add([0], np.array([0, 2, 2]), [3, 3], [1.0, 2.0])
    with pytest.raises(InvalidSettings, match="need 5 offsets"):
        writer.add([0, 1], one, [1], [1.0])
    with pytest.raises(InvalidSettings, match="ascend from 0"):
        writer.add([0], np.array([0, 2, 1]), [1], [1.0])
    with pytest.raises(InvalidSettings, match="consecutive"):
        writer.add([0, 2], np.zeros(5), [], [])
    with pytest.raises(InvalidSettings, match="expected image 0, got 1"):
        writer.add([1], one, [1], [1.0])
    with pytest.raises(InvalidSettings, match=r"0 \.\. 3"):
        writer.add([4], one, [1], [1.0])
    with pytest.raises(InvalidSettings, match="embeddings"):
        writer.add([0], one, [1], [1.0], np.zeros((1, 3)))


def test_questions_that_cannot_be_meant_are_refused(tmp_path):
    index = build(tmp_path, random_dense(), has_cls=False)
    with pytest.raises(LatentOutOfRange):
        index.affected([40])
    with pytest.raises(InvalidEdit, match="no CLS"):
        index.affected([0], Scope("cls"))
    with pytest.raises(InvalidEdit, match=r"0 \.\. 6"):
        index.affected([0], Scope("patch_list", (7,)))
    with pytest.raises(InvalidSettings, match="thresholds"):
        index.affected([0], thresholds=-1.0)
    with pytest.raises(InvalidSettings, match="image numbers"):
        index.image(11)
    with pytest.raises(NotFound, match="without embeddings"):
        index.embeddings()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_images": 0}, "n_images"),
        ({"d_embed": -1}, "d_embed"),
        ({"value_dtype": "float64"}, "value_dtype"),
        ({"n_tokens": 1}, "patch token"),
    ],
)
def test_a_layout_with_impossible_sizes_is_refused(changes, message):
    sizes = {"n_images": 2, "n_tokens": 3, "d_sae": 4}
    with pytest.raises(InvalidSettings, match=message):
        IndexLayout(**{**sizes, **changes})


@pytest.mark.parametrize("kind", ["all", "cls", "patches"])
def test_maxima_of_all_latents_at_once_are_those_of_each(tmp_path, kind):
    dense = random_dense()
    index = build(tmp_path, dense)
    latents, images, values = index.image_maxima(Scope(kind))
    found = np.zeros((len(dense), dense.shape[2]), dtype=np.float32)
    found[images, latents] = values
    tokens = {"all": slice(None), "cls": slice(0, 1), "patches": slice(1, None)}[kind]
    assert np.array_equal(found, dense[:, tokens].max(axis=1))
    with pytest.raises(InvalidEdit, match="stored for all tokens"):
        index.image_maxima(Scope("patch_list", (1,)))
