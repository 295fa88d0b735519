"""An index of units of a layer against the dense array that it is made of."""

import numpy as np
import pytest

from fulcrum.datasets.index import IndexKey, IndexLayout, LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.statistics import bins_of
from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import ComputationFailed, InvalidEdit, InvalidSettings, LatentOutOfRange

KEY = IndexKey("m" * 64, "s" * 64, "visual.blocks.3.mlp_in", "p" * 64, "d" * 64)
N_IMAGES, N_TOKENS, N_UNITS = 7, 5, 4


@pytest.fixture
def values():
    z = np.random.default_rng(0).normal(size=(N_IMAGES, N_TOKENS, N_UNITS)).astype(np.float32)
    z[..., 1] = -np.abs(z[..., 1])  # a unit that is never above zero
    z[2, :, 3] = 0
    return z


def layout(**changes):
    sizes = {
        "n_images": N_IMAGES,
        "n_tokens": N_TOKENS,
        "d_sae": N_UNITS,
        "images_per_shard": 3,
        "d_embed": 2,
    }
    return IndexLayout(**sizes, dense=True, **changes)


def build(folder, values, batch=2, **changes):
    writer = LatentIndexWriter(folder, KEY, layout(**changes))
    for start in range(0, N_IMAGES, batch):
        numbers = np.arange(start, min(start + batch, N_IMAGES))
        writer.add_units(numbers, values[numbers], np.tile(numbers[:, None], (1, 2)))
    return writer.finish()


@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_maxima_and_statistics_are_those_of_the_array(tmp_path, values, has_cls, batch):
    index = build(tmp_path, values, batch, has_cls=has_cls)
    scopes = {"all": values, "patches": values[:, int(has_cls) :]} | (
        {"cls": values[:, :1]} if has_cls else {}
    )
    for kind, seen in scopes.items():
        for unit in range(N_UNITS):
            images, maxima = index.image_max(unit, Scope(kind))
            assert images.tolist() == list(range(N_IMAGES))
            assert np.array_equal(maxima, seen[..., unit].max(axis=1))
    statistics = index.statistics
    flat = values.reshape(-1, N_UNITS).astype(np.float64)
    assert np.array_equal(statistics.max, values.max(axis=(0, 1)))
    assert statistics.max[1] < 0
    assert np.array_equal(statistics.n_tokens_active, (flat != 0).sum(axis=0))
    assert statistics.n_images_active.tolist() == [N_IMAGES, N_IMAGES, N_IMAGES, N_IMAGES - 1]
    np.testing.assert_allclose(statistics.mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        statistics.rms_active, np.sqrt((flat**2).sum(axis=0) / (flat != 0).sum(axis=0)), rtol=1e-12
    )
    for unit in range(N_UNITS):
        above = values[..., unit][values[..., unit] > 0]
        assert np.array_equal(statistics.histogram[unit], np.bincount(bins_of(above), minlength=128))
    assert np.array_equal(index.embeddings()[:, 0], np.arange(N_IMAGES))


def test_every_image_may_be_changed_but_by_a_cap_above_it(tmp_path, values):
    index = build(tmp_path, values)
    everyone = list(range(N_IMAGES))
    assert index.affected([1]).tolist() == everyone
    assert index.affected([]).tolist() == []
    high = float(np.sort(values[..., 0].max(axis=1))[-2])
    assert index.affected([0], thresholds=high).tolist() == [int(values[..., 0].max(axis=1).argmax())]
    assert index.affected([0], Scope("patch_list", (1,)), high).tolist() == everyone
    with pytest.raises(LatentOutOfRange):
        index.affected([N_UNITS])


def test_the_top_images_are_those_with_the_largest_maxima(tmp_path, values):
    images, maxima = build(tmp_path, values).top_images(1, 3)
    wanted = values[..., 1].max(axis=1)
    assert images.tolist() == np.argsort(-wanted, kind="stable")[:3].tolist()
    assert (maxima < 0).all()


def test_tokens_are_not_kept_and_asking_for_them_says_so(tmp_path, values):
    index = build(tmp_path, values)
    asks = [
        lambda: index.image(0),
        lambda: index.postings(0),
        index.image_maxima,
        lambda: index.quantile(0, 0.5),
        lambda: index.top_images(0, 1, by="mean"),
    ]
    for ask in asks:
        with pytest.raises(InvalidSettings, match="keeps the maxima of images and no tokens"):
            ask()
    with pytest.raises(InvalidEdit, match="CLS and patches only"):
        index.image_max(0, Scope("patch_list", (1,)))


def test_what_does_not_belong_into_it_is_refused(tmp_path, values):
    writer = LatentIndexWriter(tmp_path, KEY, layout())
    embeddings = np.zeros((2, 2))
    with pytest.raises(InvalidSettings, match="add their values"):
        writer.add([0, 1], np.zeros(2 * N_TOKENS + 1, dtype=int), np.zeros(0, int), np.zeros(0), embeddings)
    with pytest.raises(InvalidSettings, match=r"values of units must be \(2, 5, 4\)"):
        writer.add_units([0, 1], values[:2, :, :3], embeddings)
    with pytest.raises(ComputationFailed, match="not finite"):
        writer.add_units([0, 1], values[:2] * np.nan, embeddings)
    sparse = LatentIndexWriter(tmp_path / "sparse", KEY, IndexLayout(N_IMAGES, N_TOKENS, N_UNITS))
    with pytest.raises(InvalidSettings, match="of a dense index"):
        sparse.add_units([0, 1], values[:2])


def test_a_build_that_was_stopped_goes_on_and_opens_by_its_key(tmp_path, values):
    writer = LatentIndexWriter(tmp_path, KEY, layout())
    writer.add_units(range(3), values[:3], np.zeros((3, 2)))
    again = LatentIndexWriter(tmp_path, KEY, layout())
    assert again.todo() == [range(3, 6), range(6, 7)]
    for part in again.todo():
        again.add_units(part, values[list(part)], np.zeros((len(part), 2)))
    again.finish()
    index = LatentIndex.open(tmp_path, KEY, verify=True)
    assert index.layout.dense
    assert np.array_equal(index.image_max(2)[1], values[..., 2].max(axis=1))


def test_the_manifest_of_an_index_of_latents_is_what_it_was_before_units(tmp_path):
    assert "dense" not in IndexLayout(1, 2, 3).as_dict()
    assert layout().as_dict()["dense"] is True
