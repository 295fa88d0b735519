"""`fulcrum index`: the sparse latents of a data set, once."""

from fulcrum.cli import datasets, options
from fulcrum.cli.output import emit_json, out


def index(
    dataset: datasets.DatasetPath,
    index_dir: datasets.IndexFolder = None,
    model: options.Model = options.DEMO,
    pretrained: options.Pretrained = None,
    random_weights: options.RandomWeights = False,
    sae: options.SaePath = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Run a data set through model and SAE once and keep the active latents; resumes where it was interrupted."""
    from fulcrum.cli.progress import bar
    from fulcrum.datasets.formats import load_dataset
    from fulcrum.engine.indexing import open_or_build_index

    setup = options.open_engine(model, pretrained, random_weights, sae, device)
    loaded = load_dataset(dataset)
    folder = index_dir or datasets.default_index_dir(dataset)
    steerable = setup.engine.residency.steerable(setup.model, setup.sae)
    with bar("index", "images") as progress:
        built = open_or_build_index(steerable, loaded, folder, progress)
    statistics = built.statistics
    result = {
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
