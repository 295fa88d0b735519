"""The `fulcrum` command. Heavy packages are imported by the subcommand that needs them."""

import json
import sys
from typing import Annotated

import typer

from fulcrum import __version__
from fulcrum.cli import (
    bench,
    concepts,
    demo,
    doctor,
    evaluations,
    experts,
    explain,
    image_sets,
    import_images,
    import_sae,
    index,
    jobs,
    services,
    steer,
    suggest,
    train_sae,
    train_sae_job,
    up,
    validate,
)
from fulcrum.domain.errors import FulcrumError

app = typer.Typer(
    name="fulcrum",
    help="From attribution to action: see what carried a CLIP prediction, change it, prove what that does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("explain")(explain.explain)
app.command("steer")(steer.steer)
app.command("suggest")(suggest.suggest)
app.command("validate")(validate.validate)
app.command("import")(import_images.import_images)
app.command("index")(index.index)
app.command("train-sae")(train_sae.train)
app.command("import-sae")(import_sae.import_sae)
app.command("inference")(services.inference)
app.command("gateway")(services.gateway)
app.command("worker")(services.worker)
app.command("doctor")(doctor.doctor)
jobs.app.command("train-sae")(train_sae_job.train)
app.add_typer(jobs.app, name="jobs")
app.add_typer(concepts.app, name="concepts")
app.add_typer(evaluations.app, name="evaluations")
app.add_typer(experts.app, name="experts")
app.add_typer(image_sets.app, name="image-sets")
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """From attribution to action: see what carried a CLIP prediction, change it, prove what that does."""


def run(arguments: list[str] | None = None) -> None:
    """Entry point: domain errors become one line on stderr (or one JSON object) and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(arguments)
    except FulcrumError as error:
        if "--json" in arguments:
            print(json.dumps({"error": {"reason": error.reason, "message": str(error)}}))
        else:
            print(f"error: {error} [{error.reason}]", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # a folder that is missing, full, or not ours to write to
        what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        if "--json" in arguments:
            print(json.dumps({"error": {"reason": "FILE_ERROR", "message": what}}))
        else:
            print(f"error: {what} [FILE_ERROR]", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
