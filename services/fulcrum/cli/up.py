"""`fulcrum up`: the whole platform on this machine."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.cli.status import StatusBoard

if TYPE_CHECKING:
    from fulcrum.local.platform import Platform, Started

Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Address to listen on. Default: 127.0.0.1, this machine only; 0.0.0.0 opens it to others.",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="Default: the first free one from 8080 on.", show_default=False
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="The folder that holds everything: records, images, logs. Default: ~/.fulcrum/data.",
        show_default=False,
    ),
]
UpDevice = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda or cuda:<number>. Default: auto.", show_default=False),
]


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    device: UpDevice = None,
    json: options.Json = False,
) -> None:
    """Start Fulcrum on this machine, print one login link, and serve until Ctrl-C.

    Restarts what crashes, keeps everything in one folder, and leaves no process behind. With --json the addresses are
    printed as one object as soon as everything is ready.
    """
    from fulcrum.local.signals import stop_signals

    board = StatusBoard(quiet=json)
    platform = local_platform(board, host=host, port=port, data_dir=data_dir, device=device)
    with stop_signals() as stop, ThreadPoolExecutor(1) as starter:
        stop.impatient = platform.kill
        try:
            with board.live():
                started = stop.result_of(starter.submit(platform.start))
            if json:
                emit_json(as_json(started))
            else:
                greet(started)
            stop.wait()
        finally:
            if platform.started is not None and not json:
                err.print("stopping ...")
            platform.stop()


def local_platform(
    board: StatusBoard,
    *,
    image_folders: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
    **given: Any,
) -> "Platform":
    """A platform of the options that are not None, over `FULCRUM_LOCAL_*`; it knows the demo's weights."""
    from fulcrum.demo.shipped import WEIGHTS
    from fulcrum.local.platform import Platform
    from fulcrum.local.settings import read_settings

    settings = read_settings(**given)
    # The services are configured by the environment: here it is handed on, not read.
    return Platform(
        settings,
        dict(os.environ if environment is None else environment),
        folders={"demo": WEIGHTS},
        image_folders=image_folders,
        canary_model="folder:demo/clip",
        on_change=board.show,
    )


def as_json(started: "Started") -> dict[str, Any]:
    """What another program needs; flushed by the caller's print."""
    return {
        "url": started.url,
        "frontend_url": started.frontend_url,
        "login_link": started.login_link,
        "data_dir": started.data_dir,
        "logs": started.logs,
        "client_file": started.client_file,
        "redis": started.redis,
    }


def greet(started: "Started") -> None:
    """What a person needs."""
    out.print(f"\n[bold]Fulcrum serves at {started.frontend_url}[/bold]", highlight=False)
    out.print(f"   log in (once):  {started.login_link}", highlight=False, soft_wrap=True)
    out.print(f"   HTTP API:       {started.url}", highlight=False, soft_wrap=True)
    out.print(
        f"   Python:         from fulcrum.client import Client   (finds {started.client_file})",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"   logs:           {started.logs}", highlight=False, soft_wrap=True)
    if started.open_to_others:
        out.print(
            "   [yellow]It can be reached from other machines, without encryption: put TLS in front.[/yellow]"
        )
    out.print("   Ctrl-C stops everything.\n")
