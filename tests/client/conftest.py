import pytest
from tests.client.scripted import Awaiting, Blocking

# The whole gateway for real, as its own tests run it.
from tests.gateway.conftest import (  # noqa: F401
    artifacts,
    empty_redis,
    engine,
    gateway_settings,
    local_engine,
    migrated,
    platform,
    redis_url,
    store,
)


@pytest.fixture(autouse=True)
def no_gateway_of_the_developer(monkeypatch, tmp_path):
    for name in ("URL", "TOKEN"):
        monkeypatch.delenv(f"FULCRUM_CLIENT_{name}", raising=False)
    monkeypatch.setenv("FULCRUM_CLIENT_FILE", str(tmp_path / "client.json"))


@pytest.fixture(params=[Blocking, Awaiting], ids=["blocking", "awaiting"])
def client_of(request):
    """`client_of(handler)`: either client before a gateway that is a function."""
    opened = []

    def make(handler, **kwargs):
        opened.append(request.param(handler, **kwargs))
        return opened[-1]

    yield make
    for client in opened:
        client.close()
