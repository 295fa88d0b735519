"""`fulcrum bench`: ratios measured in one run, as one JSON object or a table."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out

app = typer.Typer(
    help="Benchmarks: contenders interleaved in one run, answers compared before times.", no_args_is_help=True
)

Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]


@app.command("steer")
def steer(
    model: options.Model = "ViT-B-32",
    rounds: Rounds = 5,
    threads: Threads = 1,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """21-gain sweep against 21 forwards, prefix + suffix against encode_image, attribution in suffix forwards."""
    from fulcrum.bench.steer import bench_steer

    demo = model == options.DEMO
    ref = options.model_ref(model, None, not demo)
    _print(bench_steer(ref, rounds, threads, options.resolve_device(device)), json)


@app.command("validate")
def validate(
    n_images: Annotated[int, typer.Option(min=200, help="Images of the demo world.")] = 2000,
    rounds: Rounds = 3,
    threads: Threads = 1,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Affected-only validation against a full re-run, for a correction that fires on about 2 % of the images."""
    from fulcrum.bench.validate import bench_validate
    from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
    from fulcrum.demo.world_dataset import write_demo_dataset

    with TemporaryDirectory() as folder:
        # Three splits of clean and attacked twins and nothing else.
        pairs = -(-n_images // 6)
        manifest = write_demo_dataset(Path(folder) / "data", n_pairs=pairs, n_right=0, n_neutral=0, n_cues=0)
        _print(
            bench_validate(
                demo_model(), demo_sae(), demo_task(), manifest, n_images, Path(folder) / "index", rounds, threads,
                options.resolve_device(device),
            ),
            json,
        )  # fmt: skip


def _print(result: dict[str, Any], json: bool) -> None:
    if json:
        emit_json(result)
        return
    ratios = Table(title="ratios", title_justify="left", header_style="bold")
    ratios.add_column("name")
    ratios.add_column("value", justify="right")
    for name, value in result["ratios"].items():
        ratios.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    out.print(ratios)
    times = Table(title="seconds (min / median / max)", title_justify="left", header_style="bold")
    for name in ("contender", "wall", "CPU"):
        times.add_column(name)
    for name, side in result["contenders"].items():
        if "wall_s" in side:
            wall, cpu = side["wall_s"], side["cpu_s"]
            times.add_row(
                name,
                f"{wall['min']:.3f} / {wall['median']:.3f} / {wall['max']:.3f}",
                f"{cpu['min']:.3f} / {cpu['median']:.3f} / {cpu['max']:.3f}",
            )
    out.print(times)
