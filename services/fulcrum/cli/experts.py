"""`fulcrum experts`: which units know which concepts, on the running platform, through the SDK."""

from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out

if TYPE_CHECKING:
    from fulcrum.domain.experts import Experts, ExpertUnit, StructureSummary
    from fulcrum.domain.jobs import JobRecord, JobStanding

app = typer.Typer(
    help="Units that know a concept: latents, and units of both towers, on the running platform.",
    no_args_is_help=True,
)

SearchId = Annotated[str, typer.Argument(help="Id of the search, exp_...")]


@app.command("find")
def find(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Id of the data set with the images.")],
    column: Annotated[
        list[str],
        typer.Option(
            "--column", "-c", help="Its values are the concepts: label, sticker_kind, ... Repeatable."
        ),
    ],
    sae: Annotated[str | None, typer.Option("--sae", help="Id of an SAE: experts among its latents.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Id of a model: experts among units of its vision tower."),
    ] = None,
    n_pos: Annotated[
        int | None, typer.Option("--n-pos", min=2, help="Examples drawn of each concept.")
    ] = None,
    n_neg: Annotated[
        int | None, typer.Option("--n-neg", min=2, help="Counterexamples drawn of each concept.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the search is called.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing and the random weights.")] = 0,
    json: options.Json = False,
) -> None:
    """Rank all units for every concept, beside random weights, and wait for the result."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json
    from fulcrum.domain.errors import ComputationFailed, InvalidSettings

    if (sae is None) == (model is None):
        raise InvalidSettings("name either --sae, for its latents, or --model, for units of its vision tower")
    with Client() as client:
        if sae is not None:
            job = client.experts.find_latents(
                sae, dataset, column, n_pos=n_pos, n_neg=n_neg, name=name, seed=seed
            )
        else:
            assert model is not None
            job = client.experts.find_units(
                model, dataset, column, n_pos=n_pos, n_neg=n_neg, name=name, seed=seed
            )
        job = client.jobs.wait(job, on_progress=None if json else _told)
        if job.state != "succeeded" or job.result is None:
            raise ComputationFailed(f"job {job.id} is {job.state}: {job.error}")
        found = client.experts.get(job.result["experts_id"])
    if json:
        emit_json(to_json(found))
        return
    _print_search(found)


@app.command("list")
def list_searches(
    n: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 20,
    json: options.Json = False,
) -> None:
    """The newest searches of your project."""
    from itertools import islice

    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = list(islice(client.experts.list(), n))
    if json:
        emit_json({"experts": to_json(found)})
        return
    for record in found:
        size = f"{record.n_concepts:>4} concepts {record.n_units:>7} units"
        out.print(f"{record.id}  {record.units:<8} {size}  {record.name}", highlight=False, markup=False)


@app.command("show")
def show(search: SearchId, json: options.Json = False) -> None:
    """Concepts with their best units, and how the concepts lie beside random weights and baselines."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = client.experts.get(search)
    if json:
        emit_json(to_json(found))
        return
    _print_search(found)


@app.command("units")
def units(
    search: SearchId,
    concept: Annotated[str, typer.Argument(help="Name of the concept.")],
    n: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the best.")] = 20,
    json: options.Json = False,
) -> None:
    """The best units for one concept."""
    from itertools import islice

    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = list(islice(client.experts.units(search, concept), n))
    if json:
        emit_json({"units": to_json(found)})
        return
    _print_units(found)


def _told(standing: "JobStanding") -> None:
    job: JobRecord = standing.job
    if job.progress is not None:
        p = job.progress
        err.print(f"{p.what}: {p.done:.0f} of {p.total:.0f} {p.unit}", highlight=False, markup=False)


def _print_search(found: "Experts") -> None:
    from rich.table import Table

    table = Table(header_style="bold", title=f"{found.record.id}: {found.record.name}", title_justify="left")
    for heading in ("concept", "domain", "examples", "base rate", "best AP", "its unit", "random weights"):
        table.add_column(heading, justify="left" if heading in ("concept", "domain", "its unit") else "right")
    for c in found.concepts:
        table.add_row(
            c.name, c.domain, f"{c.n_pos}/{c.n_neg}", f"{c.base_rate:.3f}", f"{c.best_ap:.3f}",
            f"{c.best_layer} {c.best_unit}", f"{c.control_best_ap:.3f}",
        )  # fmt: skip
    out.print(table)
    lines = [s for s in found.summaries if s.rule in (found.shown_rule, None)]
    if lines:
        structure = Table(header_style="bold", title="structure", title_justify="left")
        for heading in ("of", "domains recovered (ARI)", "within", "between"):
            structure.add_column(heading, justify="left" if heading == "of" else "right")
        for line in lines:
            structure.add_row(*_structure_row(line))
        out.print(structure)


def _structure_row(line: "StructureSummary") -> tuple[str, str, str, str]:
    if line.agreement is None:
        return line.of, "no domains", f"{line.mean_similarity:.3f}", f"{line.mean_similarity:.3f}"
    a = line.agreement
    return line.of, f"{a.ari:.2f}", f"{a.within:.3f}", f"{a.between:.3f}"


def _print_units(found: "list[ExpertUnit]") -> None:
    from rich.table import Table

    table = Table(header_style="bold")
    for heading in ("rank", "layer", "unit", "AP", "AUROC", "on, median", "on, p90", "off, mean", "label"):
        table.add_column(heading, justify="left" if heading in ("layer", "label") else "right")
    for u in found:
        numbers = (f"{v:.3f}" for v in (u.ap, u.auroc, u.on_p50, u.on_p90, u.off_mean))
        table.add_row(str(u.rank), u.layer, str(u.unit), *numbers, u.label or "")
    out.print(table)
