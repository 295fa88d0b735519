"""`fulcrum validate`: what a correction fixes and breaks on a data set, and the verdict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray
from rich.table import Table

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.cli.steer import read_correction
from fulcrum.domain.errors import InvalidInput


def validate(
    correction: Annotated[
        Path, typer.Option("--correction", "-c", help="Saved correction (JSON).", show_default=False)
    ],
    dataset: datasets.DatasetPath,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            help="Which images show the failure: 'column=value'; several must hold. Default: all.",
        ),
    ] = None,
    legitimate: Annotated[
        list[str] | None, typer.Option(help="Images on which the cue may speak: 'column=value'.")
    ] = None,
    protect: Annotated[
        list[str] | None, typer.Option(help="A group that must not be harmed: 'column=value'; several times.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="select (counted looks) or confirm (sealed: one look).")
    ] = "confirm",
    n_controls: Annotated[int, typer.Option(min=0, help="Matched controls; 0 leaves the gate out.")] = 100,
    harm_margin: Annotated[float, typer.Option(help="Largest share of images that may be broken.")] = 0.01,
    min_gain: Annotated[
        float, typer.Option(help="Smallest gain on the failure that is worth a correction.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Of controls and bootstrap.")] = 0,
    table: Annotated[
        Path | None, typer.Option(help="Write the per-image table here (CSV or Parquet).")
    ] = None,
    new_splits: datasets.NewSplits = False,
    index_dir: datasets.IndexFolder = None,
    prompts: options.Prompts = None,
    template: options.Template = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Judge a correction on one split: flip table, exact tests, bounds on harm, controls, gates and a verdict."""
    if split not in ("discover", "select", "confirm"):
        raise InvalidInput(f"split {split!r} is not one of discover, select, confirm")
    import numpy as np

    from fulcrum.cli.progress import bar
    from fulcrum.engine.validating import Question, validate_correction
    from fulcrum.science.validation.per_image import per_image
    from fulcrum.science.validation.report import plan
    from fulcrum.science.validation.specification import ProtectedGroup, Specification

    options.check_parent(table)
    if table is not None and table.suffix.lower() not in (".csv", ".parquet"):
        raise InvalidInput(f"the table's file must end in .csv or .parquet, got {table.name!r}")
    chosen = read_correction(correction)
    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    opened = datasets.open_run(setup, dataset, new_splits, index_dir, prompts, template, model)
    target = datasets.parse_where(opened.dataset, where) if where else None
    allowed = datasets.parse_where(opened.dataset, legitimate) if legitimate else None
    groups = []
    for text in protect or []:
        datasets.parse_where(opened.dataset, [text])
        column, _, value = text.partition("=")
        if column == "label":
            raise InvalidInput(
                "--protect takes a group column; every class is judged by the worst-group gate"
            )
        groups.append(ProtectedGroup(column.removeprefix("group_"), value))
    specification = Specification(
        harm_margin=harm_margin,
        min_gain=min_gain,
        protected_groups=tuple(groups),
        min_controls=100 if n_controls else 0,
        seed=seed,
    )
    judged = opened.dataset.splits == split
    before = plan(
        int(judged.sum()), int((judged if target is None else judged & target).sum()), specification
    )
    if not json and before.mde is not None:
        err.print(
            f"{before.n} images, {before.n_target} of the failure mode: effects from {100 * before.mde:.2f} points "
            f"overall can be seen (80 % power); a harm bound of {harm_margin:.1%} needs {before.images_for_harm} images"
        )
    question = Question(
        correction=chosen,
        split=split,  # type: ignore[arg-type]  # checked above
        target=target,
        same_cue_legitimate=allowed,
        specification=specification,
        n_controls=n_controls,
        seed=seed,
    )
    with bar("validate", "") as progress:
        validated = validate_correction(
            opened.run,
            question,
            opened.index_dir / "looks.jsonl",
            lambda name, done, total: progress(done, total),
        )
    report = validated.report
    if table is not None:
        _write_table(per_image(validated.given, specification), table)
    if json:
        emit_json(report.to_dict())
        return
    gates = Table(
        title=f"{report.verdict.badge}", title_justify="left", title_style="bold", header_style="bold"
    )
    for name in ("gate", "answer", "reason"):
        gates.add_column(name)
    colours = {"pass": "green", "fail": "red", "undecided": "yellow"}
    for gate in report.gates:
        gates.add_row(gate.name, f"[{colours[gate.state]}]{gate.state}[/]", gate.reason)
    out.print(gates)
    for text in report.gates_left_out:
        out.print(f"not asked: {text}", style="dim")
    flips = Table(title="Right before and after", title_justify="left", header_style="bold")
    for name in ("images", "n", "before", "after", "fixed", "broken", "p"):
        flips.add_column(name, justify="right")
    for name, row in (
        ("failure mode", report.target),
        ("others", report.unaffected),
        ("all", report.overall),
    ):
        if row is not None:
            flips.add_row(
                name, str(row.n), f"{row.accuracy_before:.1%}", f"{row.accuracy_after:.1%}", str(row.fixed),
                str(row.broken), f"{row.p:.2g}",
            )  # fmt: skip
    out.print(flips)
    if report.selection is not None:
        looks = report.selection
        out.print(
            f"{looks.n_looks} looks at select with {looks.n_corrections} corrections so far: "
            f"p = {looks.p:.2g}, adjusted q = {looks.q:.2g}"
        )
    n = int(np.count_nonzero(judged))
    out.print(
        f"{validated.n_affected} of {n} images can be changed by this correction; "
        f"{validated.suffix_rows} suffix rows were run in all",
        style="dim",
    )


def _write_table(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    content = pa.table({name: pa.array(values) for name, values in columns.items()})
    if path.suffix.lower() == ".csv":
        pyarrow.csv.write_csv(content, path)
    else:
        pyarrow.parquet.write_table(content, path)
    err.print(f"wrote {content.num_rows} rows to {path}")
