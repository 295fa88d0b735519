"""A workshop for each test; the demo model is loaded once."""

import shutil

import pytest
from tests.worker.workshop import Workshop

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
