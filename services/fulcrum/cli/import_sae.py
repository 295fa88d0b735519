"""`fulcrum import-sae`: an SAE that another trainer wrote, in the layout that every command reads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, out
from fulcrum.domain.hook_points import HookPoint


def import_sae(
    folder: Annotated[
        Path, typer.Argument(help="Folder of eai-sparsify (sae.safetensors) or dictionary-learning (ae.pt).")
    ],
    save: Annotated[Path, typer.Option("--out", "-o", help="Folder for the SAE.", show_default=False)],
    hook_point: Annotated[
        str,
        typer.Option(help="Where it was trained, such as visual.blocks.6.resid_post.", show_default=False),
    ],
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", "-d", help="Measure it on up to 512 of these images.", show_default=False),
    ] = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    prompts: options.Prompts = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Read an SAE of another trainer, check that it fits the model, and write it as `train-sae` does."""
    import numpy as np

    from fulcrum.datasets.formats import load_dataset
    from fulcrum.engine.foreign_saes import read_foreign
    from fulcrum.engine.residency import Residency
    from fulcrum.engine.training import quality_card
    from fulcrum.science.sae.storage import check_fits, sae_sha256, save_sae
    from fulcrum.science.vision.towers import split_tower

    hook = HookPoint.parse(hook_point)
    ref = options.model_ref(model, pretrained, random_weights)
    where = options.resolve_device(device)
    residency = Residency(where)
    loaded = residency.model(ref)
    info = loaded.info
    name = options.shown_name(ref)
    sae = read_foreign(folder, str(hook), name, info.weights_sha256, info.preprocess_sha256)
    check_fits(sae, split_tower(loaded, hook).d_in, str(hook), info.weights_sha256)
    quality: dict[str, float] = {}
    if dataset is not None:
        data = load_dataset(dataset)
        numbers = np.sort(np.random.default_rng(0).permutation(len(data))[:512])
        labelled = all(data.samples[int(i)].label is not None for i in numbers)
        task = datasets.dataset_task(data, prompts, None, model) if labelled else None
        head = None if task is None else residency.head(ref, task)
        quality = quality_card(loaded, sae.to(where), data, numbers, head).flat()
    save_sae(sae.cpu(), save, quality)
    result: dict[str, Any] = {
        "folder": save,
        "variant": sae.config.variant,
        "hook_point": str(hook),
        "d_in": sae.config.d_in,
        "d_sae": sae.config.d_sae,
        "weights_sha256": sae_sha256(sae),
        "quality": quality,
    }
    if json:
        emit_json(result)
        return
    out.print(f"{sae.config.variant} SAE of {sae.config.d_sae} latents at {hook}: {save}", markup=False)
    for figure in ("fvu", "l0", "dead_share", "ce_recovered", "top1_agreement"):
        if figure in quality:
            out.print(
                f"  {figure} {quality[figure]:.4f}, untrained twin {quality['untrained_' + figure]:.4f}"
            )
