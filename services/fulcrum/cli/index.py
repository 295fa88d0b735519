"""`fulcrum index`: the sparse latents of a data set, once."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, out
from fulcrum.cli.progress import bar

if TYPE_CHECKING:
    from fulcrum.datasets.samples import Dataset


def index(
    dataset: datasets.DatasetPath,
    check: Annotated[
        bool,
        typer.Option("--check", help="Look for damaged images, duplicates and leakage between splits first."),
    ] = False,
    new_splits: datasets.NewSplits = False,
    index_dir: datasets.IndexFolder = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Run a data set through model and SAE once and keep the active latents; resumes where it was interrupted."""
    from fulcrum.engine.indexing import open_or_build_index

    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    loaded = datasets.load(dataset, new_splits)
    hygiene = _check(loaded) if check else None
    if hygiene is not None and not json:
        _print_hygiene(hygiene)
    folder = index_dir or datasets.default_index_dir(dataset)
    steerable = setup.engine.residency.steerable(setup.model, setup.sae)
    with bar("index", "images") as progress:
        built = open_or_build_index(steerable, loaded, folder, progress)
    statistics = built.statistics
    result: dict[str, Any] = {
        "folder": built.folder,
        "dataset": loaded.name,
        "dataset_digest": loaded.digest,
        "n_images": len(loaded),
        "hook_point": built.key.hook_point,
        "bytes_per_image": built.bytes_per_image,
        "size_bytes": built.size_bytes,
        "l0": float(statistics.n_tokens_active.sum() / statistics.n_tokens),
        "dead_share": float((statistics.n_images_active == 0).mean()),
    }
    if hygiene is not None:
        result["hygiene"] = hygiene
    if json:
        emit_json(result)
        return
    out.print(
        f"{result['n_images']} images of [bold]{loaded.name}[/bold] at {built.key.hook_point}: {built.folder}"
    )
    out.print(
        f"{built.bytes_per_image['total']:,.0f} bytes per image, {result['l0']:.1f} active latents per token, "
        f"{result['dead_share']:.1%} of the latents never fire"
    )


def _check(dataset: "Dataset") -> dict[str, Any]:
    """What the hygiene report says, by the images' ids."""
    from fulcrum.datasets.hygiene import inspect_dataset

    with bar("check", "images") as progress:
        report = inspect_dataset(dataset, progress=progress)
    leaks = report.leakage(dataset).leaks
    return {
        "n_unreadable": int((~report.readable).sum()),
        "problems": report.problems[:50],
        "n_rotated": report.n_rotated,
        "n_converted": report.n_converted,
        "n_duplicate_clusters": len(report.duplicates),
        "duplicates": [[dataset.samples[n].id for n in cluster] for cluster in report.duplicates[:50]],
        "leaks": leaks[:50],
        "n_leaks": len(leaks),
    }


def _print_hygiene(found: dict[str, Any]) -> None:
    out.print(
        f"{found['n_unreadable']} unreadable images, {found['n_duplicate_clusters']} clusters of duplicates, "
        f"{found['n_leaks']} of them (or pairs) in several splits"
    )
    for problem in found["problems"][:10]:
        out.print(f"  {problem.id}: {problem.message}")
    for leak in found["leaks"][:10]:
        places = "; ".join(f"{split}: {', '.join(ids[:3])}" for split, ids in leak.ids.items())
        out.print(f"  {leak.kind}: {places}")
