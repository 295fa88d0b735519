import pytest
from tests.inference.running import Running

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.engine.local import LocalEngine


@pytest.fixture(scope="session")
def service():
    with Running() as running:
        yield running


@pytest.fixture
def remote(service):
    with service.client(user="ann") as engine:
        yield engine


@pytest.fixture(scope="session")
def local():
    """The same models without a service; asked by local names."""
    return LocalEngine()


@pytest.fixture(scope="session")
def task():
    return demo_task()


@pytest.fixture(scope="session")
def local_names():
    return demo_model(), demo_sae()
