"""`fulcrum jobs train-sae`: an SAE trained by the workers of the running platform."""

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from fulcrum.cli import jobs, options
from fulcrum.cli.naming import dataset_of
from fulcrum.cli.output import emit_json, out
from fulcrum.domain.errors import InvalidSaeConfig, UnknownModel
from fulcrum.domain.models import Variant

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.records import ModelRecord

_FIGURES = ("fvu", "l0", "dead_share", "ce_recovered", "top1_agreement")


def train(
    name: Annotated[str, typer.Argument(help="Name of the SAE in your project.", show_default=False)],
    dataset: Annotated[
        str,
        typer.Option("--dataset", "-d", help="Id or name of a data set of the platform.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Id or name of a model; needed where there are several."),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="relu, topk, batch_topk, jumprelu, gated or matryoshka.")
    ] = "topk",
    hook_point: Annotated[str | None, typer.Option(help="Default: resid_post of the middle block.")] = None,
    d_sae: Annotated[int, typer.Option(min=1, help="Number of latents.")] = 2048,
    k: Annotated[int, typer.Option(min=1, help="Active latents per token (TopK variants).")] = 16,
    n_tokens: Annotated[int, typer.Option(min=1, help="Tokens to train on.")] = 1_000_000,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Tokens per step.")] = 2048,
    split: Annotated[str | None, typer.Option(help="Train on this split only.")] = None,
    early_stop: Annotated[
        bool, typer.Option("--early-stop", help="End when the loss has stopped falling.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")] = 0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or only ask for it.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Train an SAE on the platform; exit status 1 when that did not succeed."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    if variant not in get_args(Variant):
        raise InvalidSaeConfig(f"variant {variant!r} is not one of {', '.join(get_args(Variant))}")
    asked: dict[str, Any] = {
        "hook_point": hook_point,
        "variant": variant,
        "d_sae": d_sae,
        "k": k,
        "n_tokens": n_tokens,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "split": split,
        "early_stop": early_stop,
        "seed": seed,
    }
    with Client() as client:
        job = client.saes.train(name, _model(client, model), dataset_of(client, dataset), **asked)
        if wait:
            job = jobs.follow(client, job.id, silent=json)
    if json:
        emit_json(to_json(job))
    elif not wait:
        out.print(job.id, highlight=False)
    elif job.result is not None:
        quality = job.result["quality"]
        out.print(f"{job.result['name']} {job.result['sae_id']}", highlight=False, markup=False)
        for figure in _FIGURES:
            if figure in quality:
                beside = quality[f"untrained_{figure}"]
                out.print(f"  {figure} {quality[figure]:.4f}, untrained twin {beside:.4f}", highlight=False)
    if wait and job.state != "succeeded":
        raise typer.Exit(1)


def _model(client: "Client", wanted: str | None) -> "ModelRecord":
    if wanted is not None and wanted.startswith("mdl_"):
        return client.models.get(wanted)
    known = list(client.models.list())
    found = [m for m in known if wanted in (None, m.name)]
    if len(found) == 1:
        return found[0]
    names = sorted(m.name for m in known)
    raise UnknownModel(
        f"no model {wanted!r} here: there are {names}" if wanted else f"--model is one of {names}"
    )
