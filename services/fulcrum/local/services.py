"""The processes of a local platform: how each is started, what it is told, how one sees that it is well."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from fulcrum.domain.errors import FulcrumError
from fulcrum.local.child import Check, ChildSpec
from fulcrum.local.data_folder import DataFolder
from fulcrum.local.redis_server import RedisBinary, check_redis, socket_url, write_configuration

_GRACE_S = 5.0  # more than what a service gives its running calls, before it is killed
_ALIVE_S = 60.0  # the worker's parent looks every few seconds
_SETTINGS = frozenset({2})  # exit status of our services for settings that cannot be meant


@dataclass(frozen=True)
class Addresses:
    """Where the services of one platform find each other."""

    redis_url: str
    inference: str
    host: str
    port: int
    frontend_port: int

    @property
    def url(self) -> str:
        """Of the gateway, as seen from this machine."""
        return self._here(self.port)

    @property
    def frontend_url(self) -> str:
        """Of the web interface, as seen from this machine."""
        return self._here(self.frontend_port)

    def _here(self, port: int) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{port}"


def addresses(data: DataFolder, host: str, port: int, frontend_port: int, redis_url: str | None) -> Addresses:
    """Sockets in the data folder; the ports; Redis as named by the user, or our own."""
    own = socket_url(data.socket("redis"), data.secrets.redis_password)
    return Addresses(redis_url or own, f"unix:{data.socket('inference')}", host, port, frontend_port)


def redis_child(data: DataFolder, binary: RedisBinary) -> ChildSpec:
    """Our own Redis."""
    configuration = data.path / "run" / "redis.conf"
    socket, password = data.socket("redis"), data.secrets.redis_password
    write_configuration(configuration, folder=data.path / "redis", socket=socket, password=password)
    return ChildSpec(
        "redis",
        (str(binary.path), str(configuration)),
        check_redis(socket_url(socket, password)),
        detail=binary.words,
        start_timeout_s=120.0,  # a long append-only file is read first
    )


def inference_child(
    data: DataFolder,
    where: Addresses,
    given: Mapping[str, str],
    *,
    device: str,
    folders: Mapping[str, Path],
    canary_model: str | None,
) -> ChildSpec:
    """The inference service on a unix socket. `given`: the user's environment, which wins where it may."""
    drain_s = _number(given.get("FULCRUM_INFERENCE_DRAIN_S"), 10.0)
    named = {name: str(path) for name, path in folders.items()}
    ours = {
        "FULCRUM_INFERENCE_ADDRESS": where.inference,
        "FULCRUM_INFERENCE_TOKEN": data.secrets.inference_token,
        "FULCRUM_INFERENCE_FOLDERS": _folders(given.get("FULCRUM_INFERENCE_FOLDERS", "{}"), named),
    }
    defaults = {
        "FULCRUM_INFERENCE_DEVICE": device,
        "FULCRUM_INFERENCE_ARTIFACTS_URL": given.get("FULCRUM_GATEWAY_ARTIFACTS_URL", data.artifacts_url),
        "FULCRUM_INFERENCE_CACHE_DIR": str(data.path / "sae-cache"),
        "FULCRUM_INFERENCE_DRAIN_S": f"{drain_s:g}",
        # Threads that wait for their next share of a product sleep: spinning, they take the cores from the callers.
        "OMP_WAIT_POLICY": "PASSIVE",
        # But not at once: about a millisecond bridges the gaps within one forward. ViT-B-32 on two cores: one caller
        # waited 4.9 ms longer than a bare forward, 9.3 with a tenth of it, 17 when they slept at once.
        "GOMP_SPINCOUNT": "30000",
    }
    if canary_model is not None:
        defaults["FULCRUM_INFERENCE_CANARY_MODEL"] = canary_model
    if device != "auto":
        ours["FULCRUM_INFERENCE_DEVICE"] = device
    return ChildSpec(
        "inference",
        _module("fulcrum.inference"),
        check_inference(where.inference, data.secrets.inference_token),
        env=_env(given, defaults, ours),
        detail=where.inference.removeprefix("unix:"),
        start_timeout_s=300.0,  # importing torch, and the first forward of a large model
        drain_s=drain_s + _GRACE_S,
        hopeless=_SETTINGS,
    )


def worker_child(
    data: DataFolder,
    where: Addresses,
    given: Mapping[str, str],
    *,
    device: str,
    folders: Mapping[str, Path],
) -> ChildSpec:
    """The worker of this machine, nice to whoever waits for an answer. The database is at head by then."""
    drain_s = _number(given.get("FULCRUM_WORKER_DRAIN_S"), 5.0)
    health = data.path / "run" / "worker.alive"
    health.unlink(missing_ok=True)
    named = {name: str(path) for name, path in folders.items()}
    ours = {
        "FULCRUM_WORKER_REDIS_URL": where.redis_url,
        "FULCRUM_WORKER_FOLDERS": _folders(given.get("FULCRUM_WORKER_FOLDERS", "{}"), named),
        "FULCRUM_WORKER_HEALTH_FILE": str(health),
    }
    defaults = {
        "FULCRUM_WORKER_DEVICE": device,
        "FULCRUM_WORKER_DATABASE_URL": given.get("FULCRUM_GATEWAY_DATABASE_URL", data.database_url),
        "FULCRUM_WORKER_ARTIFACTS_URL": given.get("FULCRUM_GATEWAY_ARTIFACTS_URL", data.artifacts_url),
        "FULCRUM_WORKER_SCRATCH_DIR": str(data.path / "scratch"),
        "FULCRUM_WORKER_DRAIN_S": f"{drain_s:g}",
        "FULCRUM_WORKER_RECONCILE_S": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return ChildSpec(
        "worker",
        ("nice", "-n", "10", *_module("fulcrum.worker")) if which("nice") else _module("fulcrum.worker"),
        check_file(health, _ALIVE_S),
        env=_env(given, defaults, ours),
        detail="jobs",
        drain_s=drain_s + 12.0,
        hopeless=_SETTINGS,
    )


def check_file(path: Path, max_age_s: float) -> Check:
    """Healthy when the file was touched not long ago."""

    def check() -> str | None:
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return "no sign of life yet"
        return None if age_s < max_age_s else f"no sign of life for {age_s:.0f} s"

    return check


def gateway_child(data: DataFolder, where: Addresses, given: Mapping[str, str]) -> ChildSpec:
    """The HTTP gateway. Started when Redis answers; the database is at head by then."""
    ours = {
        "FULCRUM_GATEWAY_HOST": where.host,
        "FULCRUM_GATEWAY_PORT": str(where.port),
        "FULCRUM_GATEWAY_REDIS_URL": where.redis_url,
        "FULCRUM_GATEWAY_INFERENCE_ADDRESS": where.inference,
        "FULCRUM_GATEWAY_INFERENCE_TOKEN": data.secrets.inference_token,
    }
    defaults = {
        "FULCRUM_GATEWAY_DATABASE_URL": data.database_url,
        "FULCRUM_GATEWAY_ARTIFACTS_URL": data.artifacts_url,
        # Who sits at the machine is not shared with anybody: room for a folder of images at once.
        "FULCRUM_GATEWAY_REQUESTS_PER_MINUTE": "12000",
        "FULCRUM_GATEWAY_REQUEST_BURST": "4000",
        "FULCRUM_GATEWAY_FRONTEND_URL": where.frontend_url,
    }
    return ChildSpec(
        "gateway",
        _module("fulcrum.gateway"),
        check_http(f"{where.url}/healthz"),
        env=_env(given, defaults, ours),
        detail=where.url,
        drain_s=10.0,
        hopeless=_SETTINGS,
    )


def frontend_child(data: DataFolder, where: Addresses, given: Mapping[str, str]) -> ChildSpec:
    """The web interface. It asks the gateway as whoever logged in, so it is told no secret."""
    ours = {
        "FULCRUM_FRONTEND_HOST": where.host,
        "FULCRUM_FRONTEND_PORT": str(where.frontend_port),
        "FULCRUM_FRONTEND_GATEWAY_URL": where.url,
    }
    return ChildSpec(
        "frontend",
        _module("fulcrum_ui"),
        check_http(f"{where.frontend_url}/_stcore/health"),
        env=_env(given, {}, ours),
        detail=where.frontend_url,
        drain_s=5.0,
        hopeless=_SETTINGS,
    )


def check_http(url: str) -> Check:
    """Healthy when it answers 200. Proxies of the environment are for the world outside, not for this machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def check() -> str | None:
        try:
            with opener.open(url, timeout=5):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return _detail(error.read(4096)) or f"status {error.code}"
        except (OSError, ValueError) as error:
            return f"no answer ({type(error).__name__})"

    return check


def _detail(body: bytes) -> str:
    """What a problem says, in a line."""
    try:
        content = json.loads(body)
        return str(content.get("detail") or content.get("title") or "")[:200]
    except (ValueError, AttributeError):
        return ""


def check_inference(address: str, token: str) -> Check:
    """Healthy when the service reports SERVING: a forward has passed and nothing stalls."""

    def check() -> str | None:
        from fulcrum.rpc.client import RemoteEngine

        try:
            with RemoteEngine(address, token=token) as engine:
                return (
                    None if engine.health(timeout_s=5) else "no forward passes yet, or no answer within 5 s"
                )
        except FulcrumError as error:
            return str(error)

    return check


def _module(name: str) -> tuple[str, ...]:
    # -P: a file of the user's folder must not stand in for a package.
    return (sys.executable, "-P", "-m", name)


def _env(given: Mapping[str, str], defaults: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    return {**{k: v for k, v in defaults.items() if k not in given}, **ours}


def _folders(theirs: str, ours: Mapping[str, str]) -> str:
    """Both; the user's own win. What cannot be read is passed on: the service says what is wrong with it."""
    try:
        content = json.loads(theirs)
    except ValueError:
        return theirs
    return json.dumps({**ours, **content}) if isinstance(content, dict) else theirs


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default
