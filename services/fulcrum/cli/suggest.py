"""`fulcrum suggest`: which latents to edit, for one image or a failure group."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.domain.corrections import Origin, to_dict
from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.results import GroupSuggestion, Suggestion
from fulcrum.domain.tasks import ClassSet


def suggest(
    image: Annotated[Path | None, typer.Argument(help="PNG, JPEG or WebP file, for one image.")] = None,
    wanted: Annotated[str | None, typer.Option(help="The class that the image should be.")] = None,
    max_latents: Annotated[int, typer.Option(min=1, help="Largest set to suggest for one image.")] = 5,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", "-d", help="Data set, for a failure group instead of one image."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="The failure group: 'column=value'; several must hold."),
    ] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(help="The images to leave alone: 'column=value'. Default: all others of the split."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to search on; confirm stays sealed.")] = "discover",
    max_clean_loss: Annotated[float, typer.Option(help="Largest loss of clean accuracy, as a share.")] = 0.01,
    max_edits: Annotated[int, typer.Option(min=1, help="Largest correction of a group.")] = 64,
    new_splits: datasets.NewSplits = False,
    index_dir: datasets.IndexFolder = None,
    save: Annotated[Path | None, typer.Option(help="Write the (first) correction to this JSON file.")] = None,
    prompts: options.Prompts = None,
    template: options.Template = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Find edits: minimal alternatives for one image, or one correction for a whole failure group."""
    options.check_parent(save)
    if (image is None) == (dataset is None):
        raise InvalidInput("give either an image (with --wanted) or --dataset (with --where)")
    if image is not None:
        if wanted is None:
            raise InvalidInput("say which class the image should be: --wanted")
        _for_image(
            image, wanted, max_latents, save, options.class_set(prompts, template, model),
            options.open_engine(model, pretrained, random_weights, sae, device), json,
        )  # fmt: skip
        return
    assert dataset is not None
    if not where:
        raise InvalidInput("say which images fail: --where 'column=value'")
    if split not in ("discover", "select"):
        raise InvalidInput(
            f"split {split!r} is not one of discover, select: confirm proves corrections, and searching on it would "
            "make its proof worthless"
        )
    import numpy as np

    from fulcrum.cli.progress import bar
    from fulcrum.engine.group_search import suggest_for_group

    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    opened = datasets.open_run(setup, dataset, new_splits, index_dir, prompts, template, model)
    inside = np.zeros(len(opened.dataset), dtype=bool)
    inside[opened.dataset.numbers(split=split)] = True
    group = datasets.parse_where(opened.dataset, where) & inside
    others = (datasets.parse_where(opened.dataset, clean) if clean else ~group) & inside & ~group
    with bar("search", "images") as progress:
        found = suggest_for_group(
            opened.run,
            np.flatnonzero(group),
            np.flatnonzero(others),
            max_clean_loss=max_clean_loss,
            max_edits=max_edits,
            note=f"{split}: {' and '.join(where)}",
            on_prefix=progress,
            on_step=_log_step,
        )
    _save(found, save)
    if json:
        emit_json(
            {
                **_plain_group(found),
                "correction": to_dict(found.correction),
                "sha256": found.correction.sha256,
            }
        )
        return
    out.print(
        f"Suppressing {len(found.correction.edits)} latents takes the failure group from "
        f"{found.group_accuracy_before:.1%} to {found.group_accuracy_after:.1%} "
        f"and the clean images from {found.clean_accuracy_before:.1%} to {found.clean_accuracy_after:.1%} "
        f"on the {split} split, where it was found."
    )
    out.print("latents: " + ", ".join(str(n) for n in found.correction.latents))
    out.print("What it is worth elsewhere: fulcrum validate --correction ...")


def _plain_group(found: GroupSuggestion) -> dict[str, object]:
    return {
        name: getattr(found, name)
        for name in (
            "group_accuracy_before", "group_accuracy_after", "clean_accuracy_before", "clean_accuracy_after",
            "path", "n_evaluated",
        )
    }  # fmt: skip


def _log_step(step: dict[str, object]) -> None:
    err.print(
        f"{step['action']:>7} {len(step['latents'])} latents -> {step['n_edits']} edits, "  # type: ignore[arg-type]  # a list
        f"group {step['group_accuracy']:.1%}, clean {step['clean_accuracy']:.1%}"
    )


def _save(found: GroupSuggestion, path: Path | None) -> None:
    if path is not None:
        path.write_text(json_module.dumps(to_dict(found.correction), indent=2) + "\n")
        err.print(f"saved correction {found.correction.sha256[:12]} to {path}")


def _for_image(
    image: Path,
    wanted: str,
    max_latents: int,
    save: Path | None,
    task: ClassSet,
    setup: options.Setup,
    json: bool,
) -> None:
    data = options.read_image(image)
    found: list[Suggestion] = list(
        setup.engine.suggest(setup.model, setup.sae, data, task, wanted, max_latents)
    )
    corrections = [
        setup.engine.correction(
            setup.model, setup.sae, s.edits, task=task, origin=Origin("image_search", (options.sha256(data),))
        )
        for s in found
    ]
    if save is not None and corrections:
        save.write_text(json_module.dumps(to_dict(corrections[0]), indent=2) + "\n")
        err.print(f"saved correction {corrections[0].sha256[:12]} to {save}")
    if json:
        emit_json({"suggestions": found, "corrections": [to_dict(c) for c in corrections]})
        return
    if not found:
        out.print(f"No latent of this image is estimated to speak against {wanted!r}.")
        return
    table = Table(
        title=f"Edits after which {image.name} is {wanted}", title_justify="left", header_style="bold"
    )
    for name in ("latents (gain)", "flips", "minimal", "margin before", "after", "flips between gains"):
        table.add_column(name)
    for s in found:
        latents = ", ".join(f"{e.latent} ({getattr(e, 'gain', e.kind)})" for e in s.edits)
        dose = "" if s.dose_interval is None else f"{s.dose_interval[0]:.2f} .. {s.dose_interval[1]:.2f}"
        table.add_row(
            latents, "yes" if s.flips else "no", "yes" if s.minimal else "", f"{s.margin_before:+.2f}",
            f"{s.margin_after:+.2f}", dose,
        )  # fmt: skip
    out.print(table)
    out.print("Found on this image, so this image proves nothing: see fulcrum validate.")
