"""`fulcrum bench`: ratios measured in one run, as one JSON object or a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.domain.errors import InvalidSettings, MissingDependency

if TYPE_CHECKING:
    from fulcrum.client import Client

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
    n_images: Annotated[int, typer.Option(min=200, help="Images of the demo world.")] = 10_000,
    quick: Annotated[bool, typer.Option(help="1000 images in one round: about two minutes.")] = False,
    depths: Annotated[str, typer.Option(help="Comma-separated.")] = "mid,early,late",
    in_process: Annotated[
        bool, typer.Option("--in-process", help="The code of the jobs alone, in CPU seconds, on any device.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds, with --in-process.")] = 3,
    threads: Threads = 1,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Affected-only validation and a sweep with controls against a full re-run, at three depths of the model.

    Asked for over HTTP and done by a worker of a platform that is started for it; with --in-process without one.
    """
    from fulcrum.bench.validate import bench_validate
    from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
    from fulcrum.demo.world_dataset import write_demo_dataset

    if quick:
        n_images, rounds = min(n_images, 1000), 1
    wanted = [name.strip() for name in depths.split(",")]
    with TemporaryDirectory() as folder:
        # Clean and attacked twins and nothing else.
        data = Path(folder) / "data"
        if in_process:
            manifest = write_demo_dataset(data, n_pairs=-(-n_images // 6), n_right=0, n_neutral=0, n_cues=0)
            result = bench_validate(
                demo_model(), demo_sae(), demo_task(), manifest, n_images, Path(folder) / "index", rounds,
                threads, options.resolve_device(device), _tell, wanted,
            )  # fmt: skip
        else:
            if device != "cpu":
                raise InvalidSettings(
                    f"device {device!r}: through the platform the plain loop is measured on the CPU, "
                    "with --in-process on any device"
                )
            manifest = write_demo_dataset(
                data, n_pairs={"select": -(-n_images // 2)}, n_right=0, n_neutral=0, n_cues=0
            )
            result = _validate_on_platform(manifest, Path(folder), threads, wanted)
    _print(result, json)


def _tell(text: str) -> None:
    err.print(f"[dim]{text}[/dim]", highlight=False)


def _validate_on_platform(manifest: Path, folder: Path, threads: int, depths: list[str]) -> dict[str, Any]:
    from fulcrum.bench.validate_platform import bench_validate_platform
    from fulcrum.cli.bench_platform import Asked, bench_platform
    from fulcrum.demo.shipped import demo_model, demo_sae, demo_task, served_model, served_sae

    with (
        bench_platform(folder / "platform", {"bench": manifest.parent}, threads=threads) as started,
        Asked(started) as asked,
    ):
        return bench_validate_platform(
            asked, served_model(), served_sae(), f"folder:bench/{manifest.name}",
            demo_model(), demo_sae(), demo_task(), manifest, folder / "index", threads, _tell, depths,
        )  # fmt: skip


@app.command("workers")
def workers(
    n_images: Annotated[int, typer.Option(min=200, help="Images that are indexed, 1024 a shard.")] = 8192,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one worker, then two.")] = 2,
    json: options.Json = False,
) -> None:
    """A CPU-bound job on two worker processes against one, each of one thread."""
    from fulcrum.bench.workers import Sources, bench_workers
    from fulcrum.cli.bench_platform import Asked, bench_platform
    from fulcrum.demo.shipped import served_model, served_sae
    from fulcrum.demo.world_dataset import write_demo_dataset

    with TemporaryDirectory() as folder:
        manifest = write_demo_dataset(
            Path(folder) / "data", n_pairs={"select": -(-n_images // 2)}, n_right=0, n_neutral=0, n_cues=0
        )

        @contextmanager
        def served(n_workers: int, round_: int) -> Iterator["Client"]:
            where = Path(folder) / f"platform-{n_workers}-{round_}"
            with (
                bench_platform(where, {"bench": manifest.parent}, threads=1, n_workers=n_workers) as started,
                Asked(started) as asked,
            ):
                yield asked.client

        header, *rows = manifest.read_text().splitlines(keepends=True)
        for number in range(2):
            part = rows[64 * number : 64 * (number + 1)]
            (manifest.parent / f"warm-{number}.csv").write_text("".join([header, *part]))
        sources = Sources(
            f"folder:bench/{manifest.name}", ("folder:bench/warm-0.csv", "folder:bench/warm-1.csv")
        )
        result = bench_workers(served, served_model(), served_sae(), sources, rounds, _tell)
    _print(result, json)


@app.command("train")
def train(
    quick: Annotated[
        bool, typer.Option(help="A quarter of the width and one learning rate: two to three minutes.")
    ] = False,
    variant: Annotated[str, typer.Option(help="topk, batch_topk or matryoshka.")] = "topk",
    d_in: Annotated[int | None, typer.Option(min=1, help="Width of the activations.")] = None,
    d_sae: Annotated[int | None, typer.Option(min=1, help="Latents.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Active latents per token.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Tokens per step.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=0, help="Of each quality run; 0 leaves quality out.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of the speed comparison.")] = None,
    threads: Threads = 1,
    json: options.Json = False,
) -> None:
    """SAE training against the public trainers that are installed (dependency group `bench`)."""
    from dataclasses import replace

    from fulcrum.bench.train import TrainBenchOptions, run

    if variant not in ("topk", "batch_topk", "matryoshka"):
        raise InvalidSettings(f"variant {variant!r} is not one of topk, batch_topk, matryoshka")
    given = {
        "d_in": d_in,
        "d_sae": d_sae,
        "k": k,
        "batch_size": batch_size,
        "tokens": tokens,
        "rounds": rounds,
    }
    base = TrainBenchOptions.quick() if quick else TrainBenchOptions()
    chosen = replace(
        base,
        variant=variant,  # type: ignore[arg-type]  # checked above
        threads=threads,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]  # all are ints
    )
    result = run(chosen, _tell)
    if json:
        emit_json({**result, **result["ratios"]})  # the ratios also stand where nobody has to look for them
        return
    _print_ratios(result)
    table = Table(title="contenders", title_justify="left", header_style="bold")
    columns = ("tokens_per_cpu_s", "fvu", "dead", "peak_rss_gib")
    for name in ("contender", *columns):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for name, side in result["contenders"].items():
        table.add_row(name, *(_number(side.get(column)) for column in columns))
    out.print(table)


@app.command("experts")
def experts(
    n_units: Annotated[int, typer.Option(min=1, help="Units.")] = 50_000,
    n_examples: Annotated[int, typer.Option(min=10, help="Examples.")] = 2000,
    n_sklearn: Annotated[int, typer.Option(min=1, help="Units that sklearn runs on; extrapolated.")] = 500,
    rounds: Rounds = 3,
    json: options.Json = False,
) -> None:
    """Average precision of units against sklearn in a loop, in CPU seconds of one thread."""
    from fulcrum.bench.experts import bench_experts

    result = bench_experts(n_examples, n_units, n_sklearn, rounds)
    if json:
        emit_json({**result, **result["ratios"]})
        return
    _print_ratios(result)
    out.print(result["note"])


@app.command("people")
def people(
    ratings: Annotated[
        Path, typer.Argument(help="CSV with word_1, word_2, rating (or a column for each rater).")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Text model of transformers: a folder, or a hub reference that is on this machine."
        ),
    ],
    n_pos: Annotated[int, typer.Option(min=2, help="Template sentences about each word.")] = 24,
    n_neg: Annotated[int, typer.Option(min=2, help="Sentences about other words, for each.")] = 500,
    threads: Threads = 2,
    json: options.Json = False,
) -> None:
    """Whether experts of words lie as people rate them, beside random weights and baselines: Spearman's rho."""
    from fulcrum.bench.people import bench_people
    from fulcrum.domain.concept_files import PairRatings, read_ratings_csv

    judgements = read_ratings_csv(options.read_text(ratings), ratings.stem)
    if not isinstance(judgements, PairRatings):
        raise InvalidSettings(f"{ratings.name} has odd ones out: this benchmark takes ratings of pairs")
    result = bench_people(model, judgements, n_pos, n_neg, threads, _tell)
    if json:
        emit_json({**result, **result["ratios"]})
        return
    _print_ratios(result)


@app.command("serve")
def serve(
    models: Annotated[
        str, typer.Option(help="Comma-separated; the first one's ratios also stand without its name.")
    ] = "ViT-B-32,demo",
    rounds: Rounds = 3,
    n_images: Annotated[int, typer.Option(min=64, help="Of each round.")] = 256,
    threads: Threads = 2,
    json: options.Json = False,
) -> None:
    """Throughput and latency through gRPC and HTTP, and a session with its prefix cached, against a bare loop."""
    from fulcrum.bench.serve import bench_serve
    from fulcrum.cli.bench_platform import PlatformApart, RunningPlatform, served_model

    with TemporaryDirectory() as folder:
        platform = PlatformApart(Path(folder))
        with platform as started, RunningPlatform(started, platform.memory_bytes) as running:
            wanted = [served_model(name.strip()) for name in models.split(",")]
            result = bench_serve(wanted, running, rounds, n_images, threads, _tell)
    if json:
        emit_json({**result, **result["ratios"]})
        return
    _print_ratios(result)


@app.command("ui")
def ui(
    rounds: Rounds = 3,
    moves: Annotated[int, typer.Option(min=1, help="Slider moves of each round.")] = 15,
    json: options.Json = False,
) -> None:
    """First paint of each page and the answer to a slider, in headless Chromium over the demo model."""
    from fulcrum.bench.ui import bench_ui
    from fulcrum.cli.status import StatusBoard
    from fulcrum.cli.up import local_platform
    from fulcrum.client import Client
    from fulcrum.demo.shipped import demo_task, served_model, served_sae
    from fulcrum.demo.world_dataset import attacked_image

    chromium = which("chromium") or which("chromium-browser") or which("google-chrome")
    if chromium is None:
        raise MissingDependency("there is no chromium on this machine: install Debian's package `chromium`")
    with TemporaryDirectory() as folder:
        platform = local_platform(
            StatusBoard(quiet=True),
            device="cpu",
            data_dir=Path(folder) / "data",
            client_file=Path(folder) / "client.json",
        )
        with platform as started, Client(started.url, started.token) as client:
            model = client.models.wait(client.models.create("demo CLIP", served_model()))
            client.saes.wait(client.saes.create("demo SAE", model, served_sae()))
            image = client.images.upload(attacked_image())
            result = bench_ui(
                started.frontend_url,
                started.login_link,
                image.id,
                demo_task().names,
                chromium,
                rounds=rounds,
                moves=moves,
                on_event=_tell,
            )
    if json:
        emit_json(result)
        return
    for name, value in result.items():
        out.print(f"{name:24} {value}", highlight=False)


def _number(value: Any) -> str:
    match value:
        case None:
            return ""
        case dict():
            return _number(value.get("median"))
        case float() | int():
            return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def _print(result: dict[str, Any], json: bool) -> None:
    if json:
        emit_json({**result, **result["ratios"]})  # the ratios also stand where nobody has to look for them
        return
    _print_ratios(result)
    if "contenders" not in result:
        return
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


def _print_ratios(result: dict[str, Any]) -> None:
    ratios = Table(title="ratios", title_justify="left", header_style="bold")
    ratios.add_column("name")
    ratios.add_column("value", justify="right")
    for name, value in result["ratios"].items():
        ratios.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    out.print(ratios)
