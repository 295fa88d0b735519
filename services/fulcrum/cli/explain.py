"""`fulcrum explain`: what carried the prediction."""

from typing import Annotated, get_args

import typer
from rich.table import Table

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out, prediction_table
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.results import Attribution, AttributionMethod


def explain(
    image: options.Image,
    prompts: options.Prompts = None,
    template: options.Template = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    target: options.Target_ = None,
    method: Annotated[str, typer.Option(help="act_x_grad, integrated_gradients or ablation.")] = "act_x_grad",
    n_latents: Annotated[int, typer.Option(min=1, help="How many latents to show and measure.")] = 12,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Predict an image and attribute the prediction to SAE latents, each with its measured effect."""
    if method not in get_args(AttributionMethod):
        raise InvalidSettings(f"method {method!r} is not one of {', '.join(get_args(AttributionMethod))}")
    data = options.read_image(image)
    task = options.class_set(prompts, template, model)
    wanted = options.parse_target(target, task)
    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    result = setup.engine.attribute(
        setup.model,
        setup.sae,
        data,
        task,
        wanted,
        method,  # type: ignore[arg-type]  # checked above
        n_latents,
    )
    if json:
        emit_json(result)
        return
    if random_weights or setup.sae.startswith("untrained:"):
        out.print("[yellow]Untrained weights: the numbers are right, but they mean nothing.[/yellow]")
    out.print(prediction_table(f"Prediction for {image.name}: {result.prediction.top}", result.prediction))
    out.print(_latents_table(result))
    if result.rank_agreement is not None:
        out.print(f"Rank agreement of scores with measured effects: {result.rank_agreement:+.2f}")
    if result.completeness_residual is not None:
        out.print(f"Completeness residual: {result.completeness_residual:+.4f}")
    if result.joint_effect is not None and result.interaction_share is not None:
        out.print(
            f"All shown together: {result.joint_effect:+.3f}; share that is interaction: {result.interaction_share:.0%}"
        )


def _latents_table(result: Attribution) -> Table:
    target = result.target
    what = target.class_name + (f" over {target.versus}" if target.kind == "margin" else "")
    table = Table(
        title=f"{target.kind} of {what} = {result.target_value:.3f}, by {result.method} at {result.hook_point}",
        title_justify="left",
        header_style="bold",
        caption="Scores do not sum to the target. The measured effect is what leaving the latent out takes away.",
        caption_justify="left",
    )
    for name in ("latent", "score", "measured effect", "max activation", "tokens"):
        table.add_column(name, justify="right")
    for row in result.latents:
        effect = "" if row.measured_effect is None else f"{row.measured_effect:+.3f}"
        table.add_row(
            str(row.latent),
            f"{row.score:+.3f}",
            effect,
            f"{row.max_activation:.2f}",
            str(row.n_tokens_active),
        )
    return table
