"""`fulcrum train-sae`: an SAE from the images of a data set, also by several processes under `torchrun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, err, out
from fulcrum.domain.errors import InvalidDataset, InvalidSaeConfig
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import ModelRef, Variant

if TYPE_CHECKING:
    from fulcrum.science.sae.training.ranks import Ranks


def train(
    dataset: datasets.DatasetPath,
    save: Annotated[Path, typer.Option("--out", "-o", help="Folder for the SAE.", show_default=False)],
    variant: Annotated[
        str, typer.Option(help="relu, topk, batch_topk, jumprelu, gated or matryoshka.")
    ] = "topk",
    hook_point: Annotated[
        str | None, typer.Option(help="For example visual.blocks.6.resid_post. Default: the middle block.")
    ] = None,
    d_sae: Annotated[int, typer.Option(min=1, help="Number of latents.")] = 2048,
    k: Annotated[int, typer.Option(min=1, help="Active latents per token (TopK variants).")] = 16,
    n_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to train on, over as many epochs as that takes.")
    ] = 1_000_000,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Tokens per step.")] = 2048,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    split: Annotated[
        str | None, typer.Option(help="Train on this split only; judge on the other images.")
    ] = None,
    early_stop: Annotated[
        bool,
        typer.Option("--early-stop", help="End when the loss has stopped falling, with the usual decay."),
    ] = False,
    activations: Annotated[
        Path | None,
        typer.Option(
            "--activations",
            help="Folder in which activations are kept, for the next epoch and the next SAE at the hook point.",
        ),
    ] = None,
    activations_gib: Annotated[float, typer.Option(min=0, help="Disk that they may take, in GiB.")] = 10.0,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    prompts: options.Prompts = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train an SAE on a model's activations; checkpoints every minute and resumes from there when started again.

    Several GPUs: `torchrun --nproc-per-node gpu -m fulcrum.cli train-sae ...` comes to the numbers of one.
    """
    if variant not in get_args(Variant):
        raise InvalidSaeConfig(f"variant {variant!r} is not one of {', '.join(get_args(Variant))}")
    from fulcrum.science.sae.training.ranks import torchrun_ranks

    asked = _Asked(
        dataset, save, variant, hook_point, d_sae, k, n_tokens, learning_rate, batch_size, seed, split, early_stop,
        activations, int(activations_gib * 2**30),
    )  # fmt: skip
    ref = options.model_ref(model, pretrained, random_weights)
    with torchrun_ranks(options.resolve_device(device)) as ranks:
        result = _train(asked, ref, model, prompts, ranks)
    if result is None:  # not the first of several processes, which speaks for all
        return
    if json:
        emit_json(result)
        return
    quality = result["quality"]
    table = Table(title=f"{save} at {result['hook_point']}", title_justify="left", header_style="bold")
    table.add_column("on held-out images" if split is not None else "on training images")
    table.add_column("this SAE", justify="right")
    table.add_column("untrained twin", justify="right")
    for name in ("fvu", "l0", "dead_share", "cosine", "ce_recovered", "top1_agreement"):
        if name in quality:
            table.add_row(name, f"{quality[name]:.4f}", f"{quality['untrained_' + name]:.4f}")
    out.print(table)
    out.print(
        f"{result['tokens']:,} tokens in {result['seconds']:.0f} s, "
        f"{result['waiting_share']:.0%} of it waiting for activations"
    )


@dataclass(frozen=True)
class _Asked:
    """The options that say what to train."""

    dataset: Path
    save: Path
    variant: str
    hook_point: str | None
    d_sae: int
    k: int
    n_tokens: int
    learning_rate: float
    batch_size: int
    seed: int
    split: str | None
    early_stop: bool
    activations: Path | None
    activations_bytes: int


def _train(
    asked: _Asked, ref: ModelRef, model: str, prompts: str | None, ranks: "Ranks"
) -> dict[str, Any] | None:
    """What the command prints; None in all processes but the first."""
    import numpy as np

    from fulcrum.cli.progress import bar
    from fulcrum.datasets.formats import load_dataset
    from fulcrum.engine.residency import Residency
    from fulcrum.engine.training import checkpoint_folder, quality_card, training_activations
    from fulcrum.science.sae.storage import save_sae
    from fulcrum.science.sae.training.config import TrainConfig, TrainProgress
    from fulcrum.science.sae.training.trainer import train_sae

    data = load_dataset(asked.dataset)
    residency = Residency(str(ranks.device))
    loaded = residency.model(ref)
    hook = HookPoint.parse(asked.hook_point or f"visual.blocks.{loaded.info.n_blocks // 2}.resid_post")
    everyone = np.arange(len(data))
    trained_on = everyone if asked.split is None else data.numbers(split=asked.split)
    held_out = np.setdiff1d(everyone, trained_on) if asked.split is not None else everyone
    judged = held_out[:512] if len(held_out) else everyone[:512]
    labelled = all(data.samples[int(i)].label is not None for i in judged)
    task = datasets.dataset_task(data, prompts, None, model) if labelled else None
    strangers = sorted({str(data.samples[int(i)].label) for i in judged} - set(task.names)) if task else []
    if strangers:
        raise InvalidDataset(f"labels {strangers[:5]} are not among the class prompts: leave out --prompts")
    kept = asked.activations, asked.activations_bytes
    source = training_activations(loaded, hook, data, trained_on, asked.seed, ranks, *kept)
    config = TrainConfig(
        variant=asked.variant,  # type: ignore[arg-type]  # checked before
        d_in=source.d_in,
        d_sae=asked.d_sae,
        n_tokens=asked.n_tokens,
        k=asked.k,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        early_stop=asked.early_stop,
        seed=asked.seed,
        device=str(ranks.device),
        hook_point=str(hook),
        model_name=options.shown_name(ref),
        model_sha256=loaded.info.weights_sha256,
        preprocess_sha256=loaded.info.preprocess_sha256,
    )
    with bar("train", "tokens") as progress:

        def on_progress(at: TrainProgress) -> None:
            progress(at.tokens, config.n_tokens)
            if not err.is_terminal and at.step % (10 * config.metrics_every) == 0:
                err.print(
                    f"{at.tokens:,} tokens, FVU {at.fvu:.3f}, L0 {at.l0:.1f}, dead {at.dead_share:.1%}, "
                    f"{at.tokens_per_s:,.0f} tokens/s, {at.eta_s:.0f} s left"
                )

        sae, report = train_sae(
            config,
            source,
            on_progress,
            checkpoint_folder(asked.save, data, trained_on),
            ranks=ranks,
        )
    if not ranks.is_first:
        return None
    head = None if task is None else residency.head(ref, task)
    card = quality_card(loaded, sae.to(ranks.device), data, judged, head)
    save_sae(sae, asked.save, card.flat())
    return {
        "folder": asked.save,
        "variant": asked.variant,
        "hook_point": str(hook),
        "d_in": source.d_in,
        "d_sae": asked.d_sae,
        "completed": report.completed,
        "stopped_early": report.stopped_early,
        "tokens": report.tokens,
        "n_processes": ranks.size,
        "seconds": report.seconds,
        "cpu_seconds": report.cpu_seconds,
        "waiting_share": report.waiting_seconds / report.seconds if report.seconds else 0.0,
        "held_out": asked.split is not None,
        "quality": card.flat(),
    }
