"""`fulcrum jobs`: what runs on the platform that `fulcrum up` (or a lab) serves, through the SDK."""

from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.jobs import JobRecord, JobStanding

app = typer.Typer(help="Jobs of the running platform.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="Id of the job.")]


@app.command("list")
def list_jobs(
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.", show_default=False)] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only in this state.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 20,
    json: options.Json = False,
) -> None:
    """The newest jobs of your project."""
    from itertools import islice

    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = list(islice(client.jobs.list(kind=kind, state=state), n))  # type: ignore[arg-type]  # the gateway checks
    if json:
        emit_json({"jobs": to_json(found)})
        return
    for job in found:
        out.print(_line(job), highlight=False, markup=False)


@app.command("show")
def show(job: JobId, json: options.Json = False) -> None:
    """One job, with its place in the queue."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        standing = client.jobs.get(job)
    if json:
        emit_json(to_json(standing))
        return
    _print_standing(standing)


@app.command("watch")
def watch(job: JobId, json: options.Json = False) -> None:
    """Follow a job to its end; exit status 1 when it did not succeed. With --json the job at its end."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        ended = follow(client, job, silent=json)
    if json:
        emit_json(to_json(ended))
    if ended.state != "succeeded":
        raise typer.Exit(1)


def follow(client: "Client", job: str, *, silent: bool) -> "JobRecord":
    """The job at its end; what it says is printed meanwhile."""
    from fulcrum.domain.jobs import JobStanding

    with client.jobs.watch(job) as stream:
        for item in stream:
            if silent:
                continue
            if isinstance(item, JobStanding):
                _print_standing(item)
            elif getattr(item, "kind", "") == "log":
                out.print(f"   {getattr(item, 'content', {}).get('text')}", highlight=False, markup=False)
        return stream.result()


@app.command("logs")
def logs(job: JobId, json: options.Json = False) -> None:
    """What a job said."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        events = list(client.jobs.log(job))
    if json:
        emit_json({"events": to_json(events)})
        return
    for event in events:
        text = f"{event.at:%H:%M:%S} {event.content.get('level', '')}: {event.content.get('text', '')}"
        out.print(text, highlight=False, markup=False)


@app.command("cancel")
def cancel(job: JobId, json: options.Json = False) -> None:
    """End a job; what it has stored so far stays stored."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record = client.jobs.cancel(job)
    if json:
        emit_json(to_json(record))
        return
    out.print(_line(record), highlight=False, markup=False)


@app.command("retry")
def retry(job: JobId, json: options.Json = False) -> None:
    """Queue a failed or cancelled job again."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record = client.jobs.retry(job)
    if json:
        emit_json(to_json(record))
        return
    out.print(_line(record), highlight=False, markup=False)


@app.command("save")
def save(
    job: JobId,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of a new correction.", show_default=False)
    ] = None,
    correction: Annotated[
        str | None,
        typer.Option(
            "--correction", help="Id of the correction that gets another version.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Save the correction that a suggest_correction job found."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record = client.corrections.save_suggested(job, name, correction=correction)
    if json:
        emit_json(to_json(record))
        return
    out.print(f"{record.id}  {record.name}, version {record.latest}", highlight=False, markup=False)


def _line(job: "JobRecord") -> str:
    state = "cancelling" if job.cancel_requested and job.state == "running" else job.state
    return f"{job.id}  {job.kind:<20} {state:<10} {_progress(job)}".rstrip()


def _progress(job: "JobRecord") -> str:
    if job.error is not None:
        return job.error
    if job.progress is None or job.state != "running":
        return ""
    p = job.progress
    left = "" if p.eta_s is None else f", {p.eta_s:.0f} s left"
    return f"{p.what}: {p.done:.0f} of {p.total:.0f} {p.unit}{left}"


def _print_standing(standing: "JobStanding") -> None:
    place = "" if standing.position is None else f"  number {standing.position} in the queue"
    out.print(_line(standing.job) + place, highlight=False, markup=False)
    if standing.job.result is not None:
        for name, value in standing.job.result.items():
            out.print(f"   {name}: {str(value)[:200]}", highlight=False, markup=False)
