"""`fulcrum evaluations`: what corrections did to data sets of the running platform, through the SDK."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fulcrum.cli import jobs, options
from fulcrum.cli.output import emit_json, out
from fulcrum.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.evaluations import EvaluationComparison
    from fulcrum.domain.jobs import JobRecord
    from fulcrum.domain.records import CorrectionVersion, EvaluationRecord

app = typer.Typer(
    help="What corrections did to data sets, on the running platform.",
    no_args_is_help=True,
)

EvaluationId = Annotated[str, typer.Argument(help="Id of the evaluation, evl_...", show_default=False)]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or only ask for it.")
]


@app.command("list")
def list_evaluations(
    correction: Annotated[
        str | None,
        typer.Option("--correction", "-c", help="Only of this correction, by its id.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="Only on this data set, by its id.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 20,
    json: options.Json = False,
) -> None:
    """The newest evaluations of your project."""
    from itertools import islice

    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = list(islice(client.evaluations.list(correction=correction, dataset=dataset), n))
    if json:
        emit_json({"evaluations": to_json(found)})
        return
    for record in found:
        out.print(_line(record), highlight=False, markup=False, soft_wrap=True)


@app.command("interactions")
def interactions(
    corrections: Annotated[
        list[str],
        typer.Argument(
            help="Ids of two or more corrections; cor_...@3 is version 3, without it the newest.",
            show_default=False,
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Id of the data set.", show_default=False)],
    split: Annotated[
        str, typer.Option(help="discover, or select, where each correction and pair counts as a look.")
    ] = "select",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Which images: 'column=value'; several must hold. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    wait: Wait = True,
    json: options.Json = False,
) -> None:
    """What pairs of corrections break together that neither breaks alone; exit status 1 when it did not succeed."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        job = client.evaluations.interactions(
            [_version(client, text) for text in corrections],
            dataset,
            split=cast(Any, split),  # the gateway checks
            where=_columns(where),
            seed=seed,
        )
        job = _followed(client, job, wait, json)
    if json:
        emit_json(to_json(job))
    elif job.result is not None:
        _print_interactions(job.result)
    elif not wait:
        out.print(job.id, highlight=False)
    if wait and job.state != "succeeded":
        raise typer.Exit(1)


@app.command("recompute")
def recompute(
    evaluation: EvaluationId,
    newest: Annotated[
        bool, typer.Option("--newest", help="Judge the newest version of the correction instead.")
    ] = False,
    wait: Wait = True,
    json: options.Json = False,
) -> None:
    """Ask the question of an evaluation again, of what there is today, and show what differs. It is another look.

    Exit status 1 when the job did not succeed. With --json the job, and the comparison once there is one.
    """
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        job = _followed(client, client.evaluations.recompute(evaluation, newest=newest), wait, json)
        compared = None
        if job.result is not None:
            compared = client.evaluations.compare(evaluation, job.result["evaluation_id"])
    if json:
        emit_json({"job": to_json(job), "comparison": to_json(compared)})
    elif compared is not None:
        _print_comparison(compared)
    elif not wait:
        out.print(job.id, highlight=False)
    if wait and job.state != "succeeded":
        raise typer.Exit(1)


@app.command("compare")
def compare(
    evaluation: EvaluationId,
    other: Annotated[str, typer.Argument(help="Id of the other one, of the same kind.", show_default=False)],
    json: options.Json = False,
) -> None:
    """What differs between two evaluations: what they stand on, numbers, gates, verdict, answers of images."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = client.evaluations.compare(evaluation, other)
    if json:
        emit_json(to_json(found))
        return
    _print_comparison(found)


def _version(client: "Client", text: str) -> "CorrectionVersion | str":
    id, at, number = text.partition("@")
    if not at:
        return id
    if not (number.isascii() and number.isdecimal()):
        raise InvalidRequest(f"{text!r} is no version of a correction: expected cor_...@3, or the id alone")
    return client.corrections.version(id, int(number))


def _columns(where: Sequence[str] | None) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for text in where or ():
        column, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"--where {text!r}: expected 'column=value'")
        if column in found:
            raise InvalidRequest(f"--where names {column!r} twice: an image has one value of it")
        found[column] = value
    return found or None


def _followed(client: "Client", job: "JobRecord", wait: bool, json: bool) -> "JobRecord":
    return jobs.follow(client, job.id, silent=json) if wait else job


def _line(record: "EvaluationRecord") -> str:
    said = record.badge or record.verdict or ""
    of = f"{record.correction_id}@{record.number}"
    return f"{record.id}  {record.kind:<10} {record.split:<8} {of}  {said}".rstrip()


def _print_interactions(result: dict[str, Any]) -> None:
    from rich.table import Table

    alone = Table(
        header_style="bold", title=f"{result['n']} images of {result['split']}", title_justify="left"
    )
    for heading in ("correction", "fixed", "broken", "net gain", "p"):
        alone.add_column(heading, justify="left" if heading == "correction" else "right")
    for row in (*result["corrections"], *result["together"]):
        alone.add_row(
            row["name"], str(row["fixed"]), str(row["broken"]), f"{row['net']:+.2%}", f"{row['p']:.2g}"
        )
    out.print(alone)
    pairs = Table(
        header_style="bold", title="broken together beyond what each breaks alone", title_justify="left"
    )
    for heading in ("pair", "NFR of one", "of the other", "of both", "interaction", "95 %"):
        pairs.add_column(heading, justify="left" if heading == "pair" else "right")
    for row in result["interactions"]:
        shares = (f"{row[name]:.2%}" for name in ("nfr_first", "nfr_second", "nfr_both"))
        interval = row["interval"]
        pairs.add_row(
            f"{row['first']} + {row['second']}",
            *shares,
            f"{row['interaction']:+.2%}",
            f"{interval['low']:+.2%} .. {interval['high']:+.2%}",
        )
    out.print(pairs)
    for row in result["refused"]:
        out.print(
            f"left out: {row['first']} with {row['second']}: {row['reason']}", highlight=False, markup=False
        )


def _print_comparison(found: "EvaluationComparison") -> None:
    from rich.table import Table

    out.print(f"{found.then_id} and {found.now_id}", highlight=False, markup=False)
    rows = [(c.part, c.then, c.now) for c in found.changes]
    rows += [(d.name, d.then, d.now) for d in found.differences]
    if rows:
        table = Table(header_style="bold")
        for heading in ("what", "then", "now"):
            table.add_column(heading)
        for name, then, now in rows:
            table.add_row(name, _short(then), _short(now))
        out.print(table)
    else:
        out.print("every number, every gate and the verdict are the same")
    if found.n_images:
        out.print(
            f"{found.n_images} images in both: {found.n_base_differs} with another answer of the model, "
            f"{found.n_corrected_differs} with another corrected one; margins differ by at most "
            f"{found.max_margin_difference:.3g}",
            highlight=False,
        )
    if found.n_only_then or found.n_only_now:
        out.print(
            f"{found.n_only_then} images only in the first, {found.n_only_now} only in the other",
            highlight=False,
        )


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text[:24] + "..." if len(text) > 30 else text
