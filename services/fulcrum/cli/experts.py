"""`fulcrum experts`: which units know which concepts, on the running platform, through the SDK."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.cli.speak import speak

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.experts import ExpertRule, Experts, ExpertUnit, StructureSummary
    from fulcrum.domain.jobs import JobRecord, JobStanding

app = typer.Typer(
    help="Units that know a concept: latents, units of both towers and of language models, on the running platform.",
    no_args_is_help=True,
)


class Method(StrEnum):
    """What becomes of the experts."""

    SET = "set"
    DAMP = "damp"
    TRANSPORT_MEAN = "transport_mean"
    TRANSPORT_GAUSSIAN = "transport_gaussian"
    TRANSPORT_LINEAR = "transport_linear"


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
    from fulcrum.domain.errors import InvalidSettings

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
        _wait_and_show(client, job, json)


@app.command("find-in")
def find_in(
    files: Annotated[
        list[Path],
        typer.Argument(help="Concepts: JSON files in Suau's layout, or one CSV.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Id of a model: experts among its text tower's units."),
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(
            "--language-model",
            "-l",
            help="folder:NAME/SUB or hf-hub:OWNER/NAME on the platform's machine: experts among its linear layers.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Of the language model: mlp, attention, or a name with * for anything. Repeatable; all by default.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the search is called.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random weights.")] = 0,
    json: options.Json = False,
) -> None:
    """The same for concepts given by sentences: in the text tower of a model, or in a language model."""
    from fulcrum.client import Client
    from fulcrum.domain.errors import InvalidSettings

    if (model is None) == (language_model is None):
        raise InvalidSettings("name either --model, for its text tower, or --language-model")
    if layer and model is not None:
        raise InvalidSettings(
            "--layer chooses layers of a --language-model: a text tower is searched at its blocks"
        )
    title = name or files[0].stem
    concepts = options.read_concepts(files, title)
    with Client() as client:
        if model is not None:
            job = client.experts.find_in_sentences(model, concepts, name=title, seed=seed)
        else:
            assert language_model is not None
            job = client.experts.find_in_language_model(
                language_model, concepts, layers=layer or (), name=title, seed=seed
            )
        _wait_and_show(client, job, json)


app.command("speak")(speak)


@app.command("align")
def align(
    search: SearchId,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV files: word_1,word_2,rating (or a column for each rater), or word_1,word_2,odd.",
            show_default=False,
        ),
    ],
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-out", help="Leave out words that are no concept, instead of refusing the file."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Compare a search with what people say: correlations beside ceilings, random weights and baselines."""
    from fulcrum.client import Client
    from fulcrum.domain.concept_files import read_ratings_csv

    judgements = [read_ratings_csv(options.read_text(file), file.stem) for file in files]
    with Client() as client:
        job = client.experts.align(search, judgements, unknown_words="leave_out" if leave_out else "refuse")
        _wait_and_show(client, job, json)


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


@app.command("correct")
def correct(
    search: SearchId,
    concept: Annotated[str, typer.Argument(help="Name of the concept.")],
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="To the median response to the concept, less of it, or to the responses with the concept from those "
            "without it.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="What the correction is called.")],
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Where the units are taken from; by default where most of them are."),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, max=1000, help="So many units, the best by AP; 20 by default.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option("--tau", min=0, help="All units with a higher AP instead.")
    ] = None,
    away: Annotated[
        bool,
        typer.Option("--away", help="Set or transport them to what they are without the concept instead."),
    ] = False,
    strength: Annotated[float, typer.Option("--strength", help="1 is the whole of it.")] = 1.0,
    json: options.Json = False,
) -> None:
    """Save a correction that changes the experts of a concept in one layer."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record = client.experts.correct(
            search,
            concept,
            method.value,
            name,
            layer=layer,
            k=k,
            tau=tau,
            towards="others" if away else "concept",
            strength=strength,
        )
        version = client.corrections.version(record)
    if json:
        emit_json({"correction": to_json(record), "version": to_json(version)})
        return
    out.print(f"{record.id}  {record.name}", highlight=False, markup=False)
    out.print(version.note, highlight=False, markup=False)


def _wait_and_show(client: "Client", job: "JobRecord", json: bool) -> None:
    from fulcrum.domain.codec import to_json
    from fulcrum.domain.errors import ComputationFailed

    job = client.jobs.wait(job, on_progress=None if json else _told)
    if job.state != "succeeded" or job.result is None:
        raise ComputationFailed(f"job {job.id} is {job.state}: {job.error}")
    found = client.experts.get(job.result["experts_id"])
    if json:
        emit_json(to_json(found))
        return
    _print_search(found)
    _print_alignments(found)


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


def _print_alignments(found: "Experts") -> None:
    from rich.table import Table

    for human in found.alignments:
        table = Table(
            header_style="bold", title=f"{human.name}: {human.n_used} {human.kind}", title_justify="left"
        )
        for heading in ("of", "rule", "rho, or share of odd ones out", "95 %", "p"):
            table.add_column(heading, justify="left" if heading in ("of", "rule") else "right")
        for c in human.correlations:
            if c.rule in (None, found.shown_rule) or c.rule.value is None:
                interval = f"{c.ci_low:.2f} .. {c.ci_high:.2f}"
                table.add_row(c.of, _rule_words(c.rule), f"{c.rho:.2f}", interval, f"{c.p_value:.3f}")
        for t in human.triplets:
            if t.rule in (None, found.shown_rule) or t.rule.value is None:
                table.add_row(t.of, _rule_words(t.rule), f"{t.accuracy:.2f}", "", "")
        for ceiling in human.ceilings:
            table.add_row("people", ceiling.name, f"{ceiling.value:.2f}", "", "")
        out.print(table)


def _rule_words(rule: "ExpertRule | None") -> str:
    if rule is None:
        return "baseline"
    return rule.rule if rule.value is None else f"{rule.rule} {rule.value:g}"


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
