"""A workshop for each test; the demo model is loaded once."""

import shutil

import pytest
from tests.worker.lab import Lab
from tests.worker.workshop import Workshop

from fulcrum.datasets.formats import load_dataset
from fulcrum.demo.shipped import demo_model, demo_sae
from fulcrum.demo.world_dataset import write_demo_dataset
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.local import LocalEngine
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import migrate, open_store


@pytest.fixture(scope="session")
def local_engine():
    return LocalEngine()


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "template.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def store_url(migrated_store, tmp_path):
    return f"sqlite:///{shutil.copy(migrated_store, tmp_path / 'store.sqlite')}"


@pytest.fixture
def workshop(store_url, tmp_path, local_engine):
    with open_store(store_url) as store, open_artifacts(f"file://{tmp_path / 'artifacts'}") as artifacts:
        yield Workshop(store, artifacts, tmp_path / "scratch", lambda: local_engine)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    n_pairs = {"discover": 24, "select": 16, "confirm": 30}
    return load_dataset(write_demo_dataset(folder, n_pairs=n_pairs, n_right=4, n_neutral=4, n_cues=2, seed=5))


@pytest.fixture(scope="session")
def small_index(local_engine, small_world, tmp_path_factory):
    steerable = local_engine.residency.steerable(demo_model(), demo_sae())
    return open_or_build_index(steerable, small_world, tmp_path_factory.mktemp("index"))


@pytest.fixture
def lab(workshop, local_engine, small_world, small_index):
    return Lab(workshop, local_engine, small_world, small_index)
