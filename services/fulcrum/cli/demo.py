"""`fulcrum demo`: the whole workflow on the demo world."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out, plain, prediction_table
from fulcrum.cli.progress import bar
from fulcrum.cli.status import StatusBoard
from fulcrum.cli.up import Port, as_json, greet, local_platform

if TYPE_CHECKING:
    from fulcrum.demo.served import Served
    from fulcrum.demo.story import Story


def demo(
    folder: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the report, the correction and the platform's data.",
        ),
    ] = Path("fulcrum-demo"),
    exit_: Annotated[
        bool, typer.Option("--exit", help="Stop the platform after the story instead of serving on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the drawn world and the controls.")] = 0,
    port: Port = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Start Fulcrum and play its story: find a correction of an attack, prove it, explain an image, write a report.

    Everything is asked over HTTP and done by the platform's jobs and services, which then serve on until Ctrl-C. In the
    same folder a second time what was computed is used again.
    """
    from fulcrum.client import Client
    from fulcrum.demo.report import write_report
    from fulcrum.demo.served import Served
    from fulcrum.demo.shipped import WORLD_NAME, demo_task
    from fulcrum.demo.story import tell
    from fulcrum.local.signals import stop_signals

    began = time.perf_counter()
    data_dir = folder / "platform"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    worlds = data_dir / WORLD_NAME
    worlds.mkdir(exist_ok=True)  # workers start with the folders that imports may name
    platform = local_platform(
        StatusBoard(quiet=json),
        image_folders={WORLD_NAME: worlds.resolve()},
        data_dir=data_dir,
        # A platform that ends with the story must not be what `Client()` looks for afterwards.
        client_file=data_dir / "client.json" if exit_ else None,
        port=port,
        device=None if device == "auto" else device,
    )
    last = ""
    running: list[Served] = []
    # Not `with` for the starter: its end would wait for a start that is to be stopped.
    starter = ThreadPoolExecutor(1)
    with stop_signals(interrupt=True) as stop, ExitStack() as undo:
        stop.impatient = platform.kill
        undo.callback(starter.shutdown)
        undo.callback(platform.stop)
        # torch is imported over there while the world is drawn here
        starting = starter.submit(platform.start)
        with bar("demo", "") as progress:

            def on_step(what: str, done: int, total: int) -> None:
                nonlocal last
                stop.check()
                if starting.done():
                    starting.result()  # why it did not start is said at once
                if what != last and not json:
                    err.print(f"[dim]{what} ...[/dim]")
                    last = what
                if total:
                    progress(done, total)

            def services() -> Served:
                started = stop.result_of(starting)
                # A busy machine may take its time; nobody waits at a keyboard for one answer here.
                client = undo.enter_context(Client(started.url, started.token, timeout_s=300))
                running.append(Served(client, demo_task(), on_step))
                return running[0]

            story = tell(folder, worlds, services, on_step, seed)
        report = (folder / "report.html").resolve()
        write_report(story, report)
        started = stop.result_of(starting)
        if json:
            emit_json(
                {**plain(story.findings), "platform": {**as_json(started), "agreement": story.agreement}}
            )
        else:
            _print(story)
            out.print(f"\nReport with pictures: {report}", soft_wrap=True)
            out.print(f"The correction:       {(folder / 'correction.json').resolve()}", soft_wrap=True)
            out.print(f"[dim]{time.perf_counter() - began:.0f} s[/dim]")
            if not exit_:
                greet(started)
        if not exit_:
            _go_on(running[0], story)
            stop.wait()
        if not json:
            err.print("stopping ...")


def _go_on(served: "Served", story: "Story") -> None:
    """What the platform computes while somebody reads: which units know what was planted in the world."""
    from fulcrum.demo.experts import ask_for_planted_experts

    dataset = served.client.datasets.get(story.evaluation.dataset_id)
    ask_for_planted_experts(served.client, served.model, served.sae, dataset)


def _print(story: "Story") -> None:
    sample, report = story.example, story.report
    attribution, findings = story.attribution, story.findings
    out.print(
        f"\n[bold]1. One wrong answer.[/bold] {sample.id}: a {sample.label} whose sticker says "
        f"'{sample.metadata['sticker_word']}'; the model says {attribution.prediction.top}."
    )
    table = Table(header_style="bold", title="attributed to", title_justify="left")
    for name in ("latent", "score", "measured effect"):
        table.add_column(name, justify="right")
    for row in attribution.latents[:6]:
        table.add_row(str(row.latent), f"{row.score:+.2f}", f"{row.measured_effect:+.2f}")
    out.print(table)
    for suggestion in story.suggestions[:3]:
        latents = ", ".join(str(e.latent) for e in suggestion.edits)
        outcome = "flips the answer" if suggestion.flips else "comes nearest"
        out.print(f"   suppressing {latents} {outcome} (margin {suggestion.margin_after:+.2f})")
    group = story.group
    out.print(
        f"\n[bold]2. One correction for the failure.[/bold] {len(group.correction.edits)} latents, found on the "
        f"discover split: attacked {group.group_accuracy_before:.1%} -> {group.group_accuracy_after:.1%}, "
        f"clean {group.clean_accuracy_before:.1%} -> {group.clean_accuracy_after:.1%}"
    )
    if (flip := story.curve.flip_interval) is not None:
        out.print(f"   the image above changes its answer at a gain of {sum(flip) / 2:.2f}")
    out.print(prediction_table("The same image", story.effect.before, story.effect.after, n=4))
    out.print(
        "\n[bold]3. The proof[/bold] on the confirm split, unseen so far "
        f"({2 * story.agreement.n_images} answers over HTTP and gRPC are those of the job):"
    )
    proof = Table(header_style="bold")
    for name in ("", "before", "after"):
        proof.add_column(name, justify="right")
    proof.add_row(
        "attacked top-1", f"{findings.attacked_top1:.1%}", f"{findings.corrected_attacked_top1:.1%}"
    )
    proof.add_row("clean top-1", f"{findings.clean_top1:.1%}", f"{findings.corrected_clean_top1:.1%}")
    out.print(proof)
    out.print(
        f"   n = {findings.n_confirm} pairs; McNemar p = {findings.mcnemar_p:.2g}; at most {findings.nfr_upper95:.2%} "
        f"of all images broken (95 %); {findings.attacked_as_word:.0%} of the attacked errors were the written word"
    )
    out.print(
        f"   95 % of 100 matched controls gain no more than {100 * findings.control_p95_gain:+.1f} points"
    )
    out.print(f"   verdict: [bold]{story.evaluation.badge}[/bold]")
    colours = {"pass": "green", "fail": "red", "undecided": "yellow"}
    for gate in report["gates"]:
        out.print(f"   [{colours[gate['state']]}]{gate['state']:>9}[/] {gate['name']}: {gate['reason']}")
