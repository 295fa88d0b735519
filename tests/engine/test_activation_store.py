"""Activations kept on disk: the same bits, and nothing but what was written whole."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from fulcrum.demo.shipped import demo_model
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.hook_points import HookPoint
from fulcrum.engine import training
from fulcrum.engine.activation_store import ActivationStore, make_room
from fulcrum.engine.training import DatasetActivations

HOOK = HookPoint.parse("visual.blocks.2.resid_post")
SHAPE = (5, 8)
ROW_BYTES = 5 * 8 * 4


def rows(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(0)).to(dtype)


def opened(folder, n=10, dtype=torch.float32, budget=10**6):
    return ActivationStore(folder, n, SHAPE, dtype, budget)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_come_back_bit_for_bit_also_after_it_was_opened_again(tmp_path, dtype):
    store, x = opened(tmp_path, dtype=dtype), rows(10, dtype)
    for n in (0, 3, 9):
        store.put(n, x[n])
    for again in (store, opened(tmp_path, dtype=dtype)):
        for n in range(10):
            found = again.get(n)
            if n in (0, 3, 9):
                assert found.dtype == dtype
                assert torch.equal(found, x[n])
            else:
                assert found is None


def test_a_row_that_was_torn_counts_as_absent_and_can_be_written_again(tmp_path):
    store, x = opened(tmp_path), rows(2)
    store.put(0, x[0])
    store.put(1, x[1])
    with (tmp_path / "rows.bin").open("r+b") as file:
        file.seek(ROW_BYTES + 7)
        file.write(b"torn")
    again = opened(tmp_path)
    assert torch.equal(again.get(0), x[0])
    assert again.get(1) is None
    again.put(1, x[1])
    assert torch.equal(opened(tmp_path).get(1), x[1])


def test_what_does_not_fit_is_not_kept(tmp_path):
    store, x = opened(tmp_path, budget=2 * ROW_BYTES + 1), rows(4)
    for n in range(4):
        store.put(n, x[n])
    assert [store.get(n) is not None for n in range(4)] == [True, True, False, False]


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**6})())
    store = opened(tmp_path)
    store.put(0, rows(1)[0])
    assert store.get(0) is None


def test_the_longest_unused_goes_first_and_the_one_in_use_stays(tmp_path):
    for age, name in enumerate(("old", "older", "used")):
        store = opened(tmp_path / name, n=100)
        for n, row in enumerate(rows(100)):
            store.put(n, row)
        del store
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    size = sum(f.stat().st_blocks * 512 for f in (tmp_path / "old").iterdir())
    make_room(tmp_path, tmp_path / "used", size)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "used"]
    make_room(tmp_path, tmp_path / "used", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["used"]


def test_what_somebody_has_open_is_not_removed_and_counts_against_the_budget(tmp_path):
    held, x = opened(tmp_path / "held", n=100), rows(100)
    for n, row in enumerate(x):
        held.put(n, row)
    assert make_room(tmp_path, tmp_path / "mine", 0) >= 100 * ROW_BYTES
    assert torch.equal(held.get(7), x[7])
    held.put(99, x[99])
    del held
    assert make_room(tmp_path, tmp_path / "mine", 0) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_same_weights_behind_another_preprocessing_are_another_folder(engine, small_world, tmp_path):
    loaded = engine.residency.model(demo_model())
    ActivationStore.open(tmp_path, loaded, HOOK, small_world, 10**9)
    other = replace(loaded, info=replace(loaded.info, preprocess_sha256="0" * 64))
    ActivationStore.open(tmp_path, other, HOOK, small_world, 10**9)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_training_reads_from_disk_what_the_one_before_computed(engine, small_world, tmp_path, monkeypatch):
    loaded = engine.residency.model(demo_model())
    numbers = np.arange(40)

    def source(budget=10**9):
        store = ActivationStore.open(tmp_path, loaded, HOOK, small_world, budget)
        return DatasetActivations(
            loaded, HOOK, small_world, numbers, seed=1, cache_budget_bytes=0, store=store
        )

    plain = torch.cat(list(DatasetActivations(loaded, HOOK, small_world, numbers, seed=1).read(0)))
    some = source(10 * 50 * loaded.info.d_model * 4)
    assert torch.equal(torch.cat(list(some.read(0))), plain)
    assert torch.equal(torch.cat(list(source().read(0))), plain)
    monkeypatch.setattr(training, "image_batches", lambda *_: pytest.fail("the model was asked"))
    assert torch.equal(torch.cat(list(source().read(0))), plain)
    assert torch.equal(torch.cat(list(source().read(777))), plain[777:])
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {"lock", "rows.bin", "sums.bin"}


def test_another_hook_point_or_data_set_is_another_folder(engine, small_world, tmp_path):
    loaded = engine.residency.model(demo_model())
    half = small_world.subset(np.arange(20))
    for hook, data in (
        (HOOK, small_world),
        (HOOK, half),
        (HookPoint.parse("visual.blocks.1.resid_post"), half),
    ):
        ActivationStore.open(tmp_path, loaded, hook, data, 10**9)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(InvalidSettings, match="negative"):
        ActivationStore.open(tmp_path, loaded, HOOK, half, -1)
