"""A small demo data set with its index, shared by the tests of the engine."""

import numpy as np
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.local import LocalEngine

SMALL = {"discover": 36, "select": 12, "confirm": 36}


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    manifest = write_demo_dataset(folder, n_pairs=SMALL, n_right=6, n_neutral=6, n_cues=4, seed=5)
    return load_dataset(manifest)


@pytest.fixture(scope="session")
def engine():
    return LocalEngine()


@pytest.fixture(scope="session")
def steerable(engine):
    return engine.residency.steerable(demo_model(), demo_sae())


@pytest.fixture(scope="session")
def index(steerable, small_world, tmp_path_factory):
    return open_or_build_index(steerable, small_world, tmp_path_factory.mktemp("index"))


@pytest.fixture
def run(engine, steerable, small_world, index):
    """A run with nothing kept yet."""
    task = demo_task()
    return DatasetRun(steerable, engine.residency.head(demo_model(), task), task, small_world, index)


@pytest.fixture(scope="session")
def attacked(engine, small_world):
    """Bytes and label of an attacked image which the model takes for its word."""
    task = demo_task()
    for number in np.flatnonzero(small_world.groups["sticker_kind"] == "attack"):
        sample = small_world.samples[number]
        data = small_world.read_bytes(sample)
        if engine.predict(demo_model(), [data], task)[0].top == sample.metadata["sticker_word"]:
            return data, sample.label
    raise AssertionError("the demo model is fooled by no sticker")
