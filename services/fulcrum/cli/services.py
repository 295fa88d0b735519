"""`fulcrum inference`, `fulcrum gateway` and `fulcrum worker`: one service in the foreground, as Slurm, systemd
or a container runs it.

Options become the service's `FULCRUM_*` settings; all others of those are taken from the environment. The command
turns into the service (`exec`): signals and exit status are the service's own.
"""

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out
from fulcrum.domain.errors import InvalidSettings

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="HOST:PORT or unix:/PATH to listen on. Default: 127.0.0.1:50051.",
        show_default=False,
    ),
]
ServiceDevice = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:<number>.", show_default=False)
]
Folder = Annotated[
    list[str] | None,
    typer.Option(
        "--folder",
        help="NAME=PATH of a folder with models and SAEs, which requests name as folder:NAME/...; several times.",
    ),
]


def inference(
    address: Address = None, device: ServiceDevice = None, folder: Folder = None, json: options.Json = False
) -> None:
    """Run the inference service alone; every FULCRUM_INFERENCE_* setting counts.

    With --json its process and address are printed as one object before it takes over.
    """
    settings = {
        "FULCRUM_INFERENCE_ADDRESS": address,
        "FULCRUM_INFERENCE_DEVICE": device,
        "FULCRUM_INFERENCE_FOLDERS": _folders(folder) if folder else None,
    }
    _become("fulcrum.inference", settings, json, {"address": address})


def gateway(
    host: Annotated[
        str | None, typer.Option("--host", help="Default: 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Default: 8080.", show_default=False)
    ] = None,
    inference_address: Annotated[
        str | None,
        typer.Option(
            "--inference", help="Its HOST:PORT or unix:/PATH; several by commas.", show_default=False
        ),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Instead of serving: bring the database to this version, make the first administrator and project, "
            "and print a login link for the administrator.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Run the HTTP gateway alone; every FULCRUM_GATEWAY_* setting counts. The database must be at head: --prepare.

    With --json its process and address are printed as one object before it takes over.
    """
    settings = {
        "FULCRUM_GATEWAY_HOST": host,
        "FULCRUM_GATEWAY_PORT": None if port is None else str(port),
        "FULCRUM_GATEWAY_INFERENCE_ADDRESS": inference_address,
    }
    if prepare:
        _prepare({"host": host, "port": port}, json)
        return
    _become("fulcrum.gateway", settings, json, {"host": host, "port": port})


def worker(
    queues: Annotated[
        str | None, typer.Option("--queues", help="gpu, cpu or gpu,cpu (default).", show_default=False)
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", min=1, help="Processes. Default: one for each GPU, or one.", show_default=False
        ),
    ] = None,
    device: ServiceDevice = None,
    folder: Folder = None,
    json: options.Json = False,
) -> None:
    """Run a worker that does jobs; every FULCRUM_WORKER_* setting counts. Start as many as there are machines.

    With --json its process and queues are printed as one object before it takes over.
    """
    settings = {
        "FULCRUM_WORKER_QUEUES": queues,
        "FULCRUM_WORKER_CONCURRENCY": None if concurrency is None else str(concurrency),
        "FULCRUM_WORKER_DEVICE": device,
        "FULCRUM_WORKER_FOLDERS": _folders(folder) if folder else None,
    }
    _become("fulcrum.worker", settings, json, {"queues": queues, "concurrency": concurrency})


def _prepare(given: dict[str, Any], json: bool) -> None:
    from pydantic import ValidationError

    from fulcrum.gateway.bootstrap import prepare
    from fulcrum.gateway.settings import Settings

    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InvalidSettings(f"settings of FULCRUM_GATEWAY_*: {'; '.join(wrong)}") from error
    prepared = prepare(settings)
    if json:
        emit_json({"admin": prepared.admin.name, "login_link": prepared.login_link})
        return
    out.print(f"The database is ready. {prepared.admin.name} logs in (once):", highlight=False, markup=False)
    out.print(f"   {prepared.login_link}", highlight=False, soft_wrap=True)


def _folders(given: list[str]) -> str:
    named = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path:
            raise InvalidSettings(f"--folder {text!r}: expected NAME=PATH")
        named[name] = str(Path(path).expanduser().resolve())
    return json_module.dumps(named)


def _become(module: str, settings: dict[str, str | None], json: bool, said: dict[str, object]) -> None:
    environment = {**os.environ, **{name: value for name, value in settings.items() if value is not None}}
    if json:
        emit_json({"service": module.rpartition(".")[2], "pid": os.getpid(), **said})
    os.execve(sys.executable, [sys.executable, "-P", "-m", module], environment)
