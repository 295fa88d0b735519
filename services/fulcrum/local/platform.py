"""All of Fulcrum on one machine: what `fulcrum up` starts and stops."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.local.data_folder import DataFolder, write_client_file
from fulcrum.local.logs import LogFolder
from fulcrum.local.ports import FIRST_FRONTEND_PORT, choose_port, is_loopback
from fulcrum.local.redis_server import find_redis, require_redis
from fulcrum.local.services import (
    Addresses,
    addresses,
    check_http,
    frontend_child,
    gateway_child,
    inference_child,
    redis_child,
    worker_child,
)
from fulcrum.local.settings import Settings
from fulcrum.local.supervisor import ChildStatus, Supervisor

_ON_TABLES = ("gateway", "worker", "frontend")  # once the database is at head
_READY_TIMEOUT_S = 60.0  # for the gateway to see all others, once each of them is well by itself


@dataclass(frozen=True)
class Started:
    """What a person needs of a running platform. The link logs the administrator in, once."""

    url: str
    frontend_url: str
    login_link: str
    token: str
    data_dir: Path
    logs: Path
    client_file: Path
    redis: str
    inference_address: str  # for programs on this machine that speak gRPC themselves, with the token below
    inference_token: str
    open_to_others: bool  # the gateway can be reached from other machines


class Platform:
    """`start`, then `stop` (or use it as a context manager, which starts).

    `environment` is handed on to the services (and read for nothing else but settings of theirs that win over ours);
    `folders` are model folders that requests may name as `folder:NAME/...`, `image_folders` those that only imports
    may; they must exist. `on_change` gets the status table from other threads.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        folders: Mapping[str, Path] | None = None,
        image_folders: Mapping[str, Path] | None = None,
        canary_model: str | None = None,
        on_change: Callable[[tuple[ChildStatus, ...]], None] | None = None,
    ) -> None:
        self.settings, self._environment = settings, environment
        self._folders, self._image_folders = folders or {}, image_folders or {}
        self._canary, self._on_change = canary_model, on_change
        self._data: DataFolder | None = None
        self._logs: LogFolder | None = None
        self._supervisor: Supervisor | None = None
        self._stopped = threading.Event()
        self._opening = threading.Lock()
        self.started: Started | None = None

    def __enter__(self) -> Started:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Started:
        """Returns when a request would be answered. Whatever goes wrong, what was started is stopped again.

        Raises AlreadyRunning, InvalidSettings, MissingDependency, or ServiceUnavailable with the last words of the
        service that did not start.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Started:
        settings = self.settings
        data = DataFolder(settings.data_dir)
        with self._opening:
            self._data = data
            self._go_on()
        data.set_owner(None)
        self._logs = logs = LogFolder(data.path / "logs")
        port = choose_port(settings.host, settings.port)
        frontend_port = choose_port(settings.host, settings.frontend_port, FIRST_FRONTEND_PORT)
        external = None if settings.redis_url is None else settings.redis_url.get_secret_value()
        where = addresses(data, settings.host, port, frontend_port, external)
        inference = inference_child(
            data,
            where,
            self._environment,
            device=settings.device,
            folders=self._folders,
            canary_model=self._canary,
        )
        worker = worker_child(
            data,
            where,
            self._environment,
            device=settings.device,
            folders={**self._folders, **self._image_folders},
        )
        children = [
            inference,
            worker,
            gateway_child(data, where, self._environment),
            frontend_child(data, where, self._environment),
        ]
        if external is None:
            binary = find_redis()
            children.insert(0, redis_child(data, binary))
            redis_words = binary.words
        else:
            require_redis(external)
            redis_words = "of FULCRUM_REDIS_URL"
        supervisor = Supervisor(children, logs, self._environment, lock=data.lock, on_change=self._on_change)
        with self._opening:
            self._go_on()
            self._supervisor = supervisor
        # The slowest first; the database is prepared while torch is imported over there.
        supervisor.start(*(c.name for c in children if c.name not in _ON_TABLES))
        secret, token = self._prepare(data)
        supervisor.start(*_ON_TABLES)
        supervisor.wait_ready()
        self._wait_for_all(where)
        data.set_owner(where.url)
        client_file = settings.client_file.expanduser()
        write_client_file(client_file, where.url, token)
        self.started = Started(
            url=where.url,
            frontend_url=where.frontend_url,
            login_link=f"{where.url}/login?link={secret}",
            token=token,
            data_dir=data.path,
            logs=logs.folder,
            client_file=client_file,
            redis=redis_words,
            inference_address=where.inference,
            inference_token=data.secrets.inference_token,
            open_to_others=not is_loopback(settings.host),
        )
        return self.started

    def _go_on(self) -> None:
        if self._stopped.is_set():  # by another thread
            raise ServiceUnavailable("the platform was stopped while it started")

    def _prepare(self, data: DataFolder) -> tuple[str, str]:
        """Tables at head, administrator, project, a new login link and a new local token."""
        from fulcrum.gateway.bootstrap import bootstrap
        from fulcrum.store.database import open_store
        from fulcrum.store.migrating import migrate

        url = self._environment.get("FULCRUM_GATEWAY_DATABASE_URL", data.database_url)
        migrate(url)
        store = open_store(url)
        try:
            first = bootstrap(store)
        finally:
            store.close()
        return first.login_link_secret, first.api_token

    def _wait_for_all(self, where: Addresses) -> None:
        """Until the gateway itself says that store, Redis and inference answer it."""
        check, deadline = check_http(f"{where.url}/readyz"), time.monotonic() + _READY_TIMEOUT_S
        while (missing := check()) is not None:
            self._go_on()
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"the gateway is up but not ready: {missing}; see {self.logs_path('gateway')}"
                )
            time.sleep(0.1)

    def logs_path(self, name: str) -> Path:
        """The log file of a service."""
        assert self._logs is not None
        return self._logs.path(name)

    def status(self) -> tuple[ChildStatus, ...]:
        """The status table; empty before the start."""
        return () if self._supervisor is None else self._supervisor.status()

    def stop(self) -> None:
        """Drains and ends all services and gives the folder free. Can be called again, from another thread while
        `start` runs, and after a failed start; a stopped platform is not started again.
        """
        with self._opening:
            self._stopped.set()
            supervisor = self._supervisor
        try:
            if supervisor is not None:
                supervisor.stop()
        finally:
            with self._opening:
                if self._logs is not None:
                    self._logs.close()
                if self._data is not None:
                    self._data.close()

    def kill(self) -> None:
        """Makes `stop`, running or to come, end at once, without draining. Safe in a signal handler."""
        if self._supervisor is not None:
            self._supervisor.kill()
