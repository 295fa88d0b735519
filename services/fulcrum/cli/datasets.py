"""A data set, its index and a class set, as several subcommands open them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fulcrum.cli import options
from fulcrum.cli.output import err
from fulcrum.cli.progress import bar
from fulcrum.domain.errors import InvalidDataset
from fulcrum.domain.tasks import ClassSet

if TYPE_CHECKING:
    from fulcrum.datasets.samples import Dataset
    from fulcrum.engine.dataset_runs import DatasetRun

DatasetPath = Annotated[
    Path,
    typer.Option(
        "--dataset",
        "-d",
        help="Folder or manifest: class folders, CSV/Parquet/JSONL, WebDataset, Hugging Face on disk ...",
        show_default=False,
    ),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option("--index-dir", help="Where latent indexes are kept. Default: .fulcrum beside the data set."),
]
NewSplits = Annotated[
    bool,
    typer.Option(
        "--new-splits",
        help="Divide the images into discover, select and confirm (4 : 2 : 4, duplicates together), whatever splits "
        "they have. Done without asking where they have none.",
    ),
]
Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        "-w",
        help="Which images show the failure: 'column=value' of a group, or label=value; several must all hold.",
    ),
]


@dataclass(frozen=True)
class Opened:
    """A data set with everything that its questions need."""

    run: "DatasetRun"
    dataset: "Dataset"
    task: ClassSet
    index_dir: Path


_SHARES = {"discover": 0.4, "select": 0.2, "confirm": 0.4}


def load(path: Path, new_splits: bool) -> "Dataset":
    """The data set, with splits: its own, or (where it has none, or with `new_splits`) the same ones each time."""
    from fulcrum.datasets.formats import load_dataset
    from fulcrum.datasets.hygiene import assign_splits, inspect_dataset

    dataset = load_dataset(path)
    if dataset.split_names and not new_splits:
        return dataset
    with bar("looking for duplicates", "images") as progress:
        report = inspect_dataset(dataset, progress=progress)
    divided = assign_splits(dataset, _SHARES, seed=0, clusters=report.clusters)
    sizes = ", ".join(f"{int((divided.splits == name).sum())} {name}" for name in _SHARES)
    err.print(f"{dataset.name} was divided into {sizes} (duplicates stay together; the same each time)")
    return divided


def open_run(
    setup: options.Setup,
    dataset_path: Path,
    new_splits: bool,
    index_dir: Path | None,
    prompts: str | None,
    template: list[str] | None,
    model: str,
) -> Opened:
    """Loads the data set and opens (or builds, with a progress bar) its index."""
    from fulcrum.engine.dataset_runs import DatasetRun
    from fulcrum.engine.indexing import open_or_build_index

    dataset = load(dataset_path, new_splits)
    task = dataset_task(dataset, prompts, template, model)
    folder = index_dir or default_index_dir(dataset_path)
    residency = setup.engine.residency
    steerable = residency.steerable(setup.model, setup.sae)
    with bar("index", "images") as progress:
        index = open_or_build_index(steerable, dataset, folder, progress)
    return Opened(
        DatasetRun(steerable, residency.head(setup.model, task), task, dataset, index), dataset, task, folder
    )


def default_index_dir(dataset_path: Path) -> Path:
    """`.fulcrum` in the data set's folder."""
    return (dataset_path if dataset_path.is_dir() else dataset_path.parent) / ".fulcrum"


def dataset_task(dataset: "Dataset", prompts: str | None, template: list[str] | None, model: str) -> ClassSet:
    """The prompts given, else the demo's class set if it holds all labels, else the data set's own labels."""
    if prompts is not None or not dataset.class_names:
        return options.class_set(prompts, template, model)
    if model == options.DEMO:
        task = options.class_set(None, template, model)
        if set(dataset.class_names) <= set(task.names):
            return task
    # Not through the text of --prompts: a label may hold a comma.
    templates = tuple(template) if template else options.default_templates(model)
    return ClassSet(dataset.class_names, templates)


def parse_where(dataset: "Dataset", where: list[str]) -> NDArray[np.bool_]:
    """(n,) images for which all conditions hold. Raises InvalidDataset for columns and values that do not occur."""
    mask = np.ones(len(dataset), dtype=bool)
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise InvalidDataset(f"--where {text!r}: expected 'column=value'")
        found = np.zeros(len(dataset), dtype=bool)
        if column == "label":
            found[dataset.numbers(label=value)] = True
        else:
            found[dataset.numbers(**{column.removeprefix("group_"): value})] = True
        mask &= found
    if not mask.any():
        raise InvalidDataset(f"no image of {dataset.name!r} fulfils {' and '.join(where)}")
    return mask
