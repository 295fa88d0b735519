"""`fulcrum import`: images of this machine, or of a place that the platform knows, become a data set there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.cli.progress import bar, phases
from fulcrum.domain.errors import InvalidSettings

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.datasets import ImportReport
    from fulcrum.domain.jobs import JobRecord
    from fulcrum.domain.records import DatasetRecord

_PLACES = ("folder:", "bucket:")  # of the platform's workers, not of this machine


def import_images(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder, zip, tar or tar.gz on this machine, or `folder:NAME/sub` and `bucket:NAME/prefix` of the "
            "platform.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "-n", help="Name of the new data set. Default: that of the folder or archive."
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", help="Id of a data set whose content is replaced, instead of a new one."),
    ] = None,
    description: Annotated[str, typer.Option("--description", help="Of the new data set.")] = "",
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the images. Default: it is recognised.")
    ] = None,
    new_splits: Annotated[
        bool, typer.Option("--new-splits", help="Divide the images anew whatever splits they have.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the new splits.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Id of a registered model: images that it takes for nearly the same are duplicates too.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or only ask for it.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Import a data set into the running platform; exit status 1 when the import did not succeed."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    if into is not None and (name is not None or description):
        raise InvalidSettings(
            "--name and --description are of a new data set, --into names one that is there"
        )
    with Client() as client:
        is_new = into is None
        if into is None:
            dataset = client.datasets.create(name or _name_of(source), description=description)
        else:
            dataset = client.datasets.get(into)
        try:
            job = _ask(client, dataset, source, format, new_splits, seed, model)
            ended = _follow(client, job) if wait else job
        except BaseException:
            _forget(client, dataset, is_new)
            raise
        if wait and ended.state != "succeeded":
            _forget(client, dataset, is_new)
        made = ended.state == "succeeded"
        report = client.datasets.report(dataset) if made else None
        if not is_new or made or not wait:
            dataset = client.datasets.get(dataset)
    if json:
        emit_json(to_json({"dataset": dataset, "job": ended, "report": report}))
    elif report is not None:
        _print(dataset, report)
    elif wait:
        err.print(ended.error or f"the import was {ended.state}", highlight=False, markup=False)
    else:
        out.print(f"{dataset.id}  {ended.id}", highlight=False)
    if wait and not made:
        raise typer.Exit(1)


def _name_of(source: str) -> str:
    last = source.rstrip("/").replace(":", "/").rpartition("/")[2] or Path(source).resolve().name
    return last.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz").removesuffix(".zip") or "images"


def _ask(
    client: "Client",
    dataset: "DatasetRecord",
    source: str,
    format: str | None,
    new_splits: bool,
    seed: int,
    model: str | None,
) -> "JobRecord":
    if source.startswith(_PLACES):
        return client.datasets.import_images(
            dataset,
            source,
            format=format,
            new_splits=new_splits,
            seed=seed,
            model=model,
            expected_version=dataset.version,
        )
    with bar("sending", "bytes") as sent:
        return client.datasets.upload(
            dataset, source, format=format, new_splits=new_splits, seed=seed, model=model, on_sent=sent
        )


def _follow(client: "Client", job: "JobRecord") -> "JobRecord":
    """The job at its end."""
    from fulcrum.domain.jobs import JobStanding

    with phases() as show, client.jobs.watch(job) as stream:
        for item in stream:
            if isinstance(item, JobStanding) and item.job.progress is not None:
                p = item.job.progress
                show(p.what, p.unit, p.done, p.total)
            elif getattr(item, "kind", "") == "log":
                text = str(getattr(item, "content", {}).get("text", ""))
                err.print(text, highlight=False, markup=False)
        return stream.result()


def _forget(client: "Client", dataset: "DatasetRecord", is_new: bool) -> None:
    """An empty data set that we made for an import that failed is in the way of the next try."""
    if is_new:
        client.datasets.delete(dataset.id)


def _print(dataset: "DatasetRecord", report: "ImportReport") -> None:
    splits = ", ".join(f"{n} {split}" for split, n in sorted(report.n_by_split.items()))
    out.print(
        f"[bold]{dataset.name}[/bold] {dataset.id}: {report.n_images} images ({splits})", highlight=False
    )
    told = [
        (report.n_left_out, "images were left out"),
        (report.n_duplicate_clusters, "sets of duplicates"),
        (report.n_leaks, "sets of images stand in several splits"),
    ]
    for n, words in told:
        if n:
            out.print(f"  {n} {words}", highlight=False)
    if report.embeddings is not None:
        compared = report.embeddings
        words = f"{compared.n_links} near-duplicates by {compared.model_name} that hashes did not find"
        out.print(f"  {words} (cosine of {compared.min_cosine:g} or more)", highlight=False, markup=False)
    for line in report.warnings:
        out.print(f"  {line}", highlight=False, markup=False)
