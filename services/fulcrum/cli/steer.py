"""`fulcrum steer`: suppress or amplify latents and see the model answer."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out, prediction_table
from fulcrum.domain.corrections import Correction, Origin, from_dict, to_dict
from fulcrum.domain.edits import Edit, Scale, Scope
from fulcrum.domain.errors import InvalidEdit


def steer(
    image: options.Image,
    suppress: Annotated[str | None, typer.Option(help="Latents to suppress, separated by commas.")] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="'latent=gain' (0 suppresses, above 1 amplifies); several times.")
    ] = None,
    correction: Annotated[
        Path | None, typer.Option(help="A saved correction (JSON) instead of edits.")
    ] = None,
    scope: Annotated[str, typer.Option(help="all, cls, patches, or patch numbers such as '3,4,9'.")] = "all",
    save: Annotated[Path | None, typer.Option(help="Write the correction to this JSON file.")] = None,
    prompts: options.Prompts = None,
    template: options.Template = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    target: options.Target_ = None,
    n_controls: Annotated[
        int, typer.Option(min=0, help="Random pushes of the same size to compare with.")
    ] = 32,
    seed: Annotated[int, typer.Option(help="Of the controls.")] = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Edit latents of one image and compare the answers before and after, with controls."""
    options.check_parent(save)
    data = options.read_image(image)
    task = options.class_set(prompts, template, model)
    wanted = options.parse_target(target, task)
    edits = parse_edits(suppress, scale)
    if bool(edits) == (correction is not None):
        raise InvalidEdit("say what to edit: either --suppress / --scale, or --correction")
    if correction is not None and scope != "all":
        raise InvalidEdit("a saved correction has its own scope: leave out --scope")
    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    if correction is not None:
        chosen = read_correction(correction)
    else:
        chosen = setup.engine.correction(
            setup.model, setup.sae, edits, scope=parse_scope(scope), task=task, origin=Origin("manual")
        )
    effect = setup.engine.steer(
        setup.model, setup.sae, data, chosen, task, wanted, n_controls=n_controls, seed=seed
    )
    if save is not None:
        save.write_text(json_module.dumps(to_dict(chosen), indent=2) + "\n")
        err.print(f"saved correction {chosen.sha256[:12]} to {save}")
    if json:
        emit_json({"correction": to_dict(chosen), "correction_sha256": chosen.sha256, "effect": effect})
        return
    verb = "flips to" if effect.flipped else "stays"
    out.print(prediction_table(f"{effect.before.top} {verb} {effect.after.top}", effect.before, effect.after))
    for edit, fired in zip(chosen.edits, effect.diagnostics.fired, strict=True):
        out.print(f"latent {edit.latent} ({edit.kind}): {'fired' if fired else 'did not fire here'}")
    if not effect.diagnostics.condition_met:
        out.print("the correction's conditions do not hold on this image: nothing was changed")
    change = effect.diagnostics.relative_change
    out.print(f"relative change of the activations: mean {change.mean():.3f}, largest {change.max():.3f}")
    if effect.target_before is not None and effect.target_after is not None:
        out.print(f"target: {effect.target_before:+.3f} -> {effect.target_after:+.3f}")
    for control in effect.controls:
        out.print(
            f"{control.kind.replace('_', ' ')} of the same size: {control.n_flipped} of {len(control.target_changes)} "
            f"change the prediction in the same way, p = {control.p_value:.3f}"
        )


def parse_edits(suppress: str | None, scale: list[str] | None) -> tuple[Edit, ...]:
    """Raises InvalidEdit for what is no latent or no gain."""
    edits: list[Edit] = []
    try:
        for part in (suppress or "").split(","):
            if part.strip():
                edits.append(Scale(int(part), 0.0))
        for text in scale or []:
            latent, _, gain = text.partition("=")
            edits.append(Scale(int(latent), float(gain)))
    except ValueError as error:
        raise InvalidEdit(f"expected latents such as '3,17' and gains such as '3=0.5': {error}") from error
    return tuple(edits)


def parse_scope(text: str) -> Scope:
    """Raises InvalidEdit."""
    if text in ("all", "cls", "patches"):
        return Scope(text)  # type: ignore[arg-type]  # one of the literals
    try:
        return Scope("patch_list", tuple(int(p) for p in text.split(",")))
    except ValueError as error:
        raise InvalidEdit(f"scope {text!r} is not all, cls, patches or patch numbers") from error


def read_correction(path: Path) -> Correction:
    """Raises InvalidEdit when the file is not a correction."""
    try:
        return from_dict(json_module.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InvalidEdit(f"cannot read a correction from {str(path)!r}: {error}") from error
