"""The sparse latent index of a data set: built once, read by every validation, search and concept page.

A shard is computed alone (`fill_shard`), from its own images: every pass has the one fixed batch size, with which an
image has the same bits whoever stands beside it, so shards may be computed anywhere, in any order, and kept for the
next data set that holds the same images at the same places.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from fulcrum.datasets.index import IndexKey, IndexLayout, LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.key import VERSION
from fulcrum.datasets.index.reader import INDEX_FILE, shard_name
from fulcrum.datasets.samples import Dataset
from fulcrum.engine.dataset_runs import Progress, embeddings_of, prefix_of
from fulcrum.engine.image_batches import image_batches
from fulcrum.engine.residency import Steerable

# Images of a shard by the size of the data set: enough shards to share among workers and to see progress, few enough
# that a latent's postings are not spread over thousands of files. Multiples of the batch size waste no rows.
_SHARD_SIZES: Final = ((8_192, 128), (131_072, 512))
_LARGEST_SHARD: Final = 2_048


def index_key(steerable: Steerable, dataset: Dataset) -> IndexKey:
    """Everything that determines the numbers in an index."""
    info = steerable.loaded.info
    return IndexKey(
        model_sha256=info.weights_sha256,
        sae_sha256=steerable.sae_info.weights_sha256,
        hook_point=str(steerable.sae_info.hook_point),
        preprocess_sha256=info.preprocess_sha256,
        dataset_digest=dataset.digest,
        device_type=steerable.loaded.device.type,
        dtype=info.dtype,
    )


def shard_size(n_images: int) -> int:
    """How many images a shard of a shared index holds."""
    return next((size for up_to, size in _SHARD_SIZES if n_images <= up_to), _LARGEST_SHARD)


def index_layout(
    steerable: Steerable, dataset: Dataset, images_per_shard: int, keep_activations_bytes: int = 0
) -> IndexLayout:
    """Activations are kept of the first images that fit into the budget, where a suffix can start from them alone."""
    resumable = steerable.sae_info.hook_point.site == "resid_post"
    return IndexLayout(
        n_images=len(dataset),
        n_tokens=steerable.tower.n_tokens,
        d_sae=steerable.sae.config.d_sae,
        has_cls=steerable.tower.has_cls,
        d_embed=steerable.loaded.info.d_embed,
        images_per_shard=images_per_shard,
        d_in=steerable.sae.config.d_in if keep_activations_bytes and resumable else 0,
        activation_budget_bytes=keep_activations_bytes if resumable else 0,
        dense=steerable.sae_info.variant == "units",
    )


def open_or_build_index(
    steerable: Steerable,
    dataset: Dataset,
    folder: Path,
    progress: Progress | None = None,
    images_per_shard: int = 1024,
) -> LatentIndex:
    """The index in `folder`, built (or continued, where a build was interrupted) if it is not there.

    One prefix, one sparse encoding and one suffix pass per image. Memory: one shard.
    Raises UnreadableImage, MissingFiles, CorruptIndex.
    """
    key = index_key(steerable, dataset)
    place = folder / f"{key.sha256[:16]}-v{VERSION}"
    if (place / INDEX_FILE).exists():
        return LatentIndex.open(place, key)
    layout = index_layout(steerable, dataset, images_per_shard)
    writer = LatentIndexWriter(place, key, layout, shard_keys=key.shard_keys(layout, dataset.bytes_sha256))
    todo = writer.todo()
    done = len(dataset) - sum(len(images) for images in todo)
    for images in todo:

        def advance(n: int, before: int = done) -> None:
            if progress is not None:
                progress(before + n, len(dataset))

        fill_shard(steerable, dataset, writer, images, advance)
        done += len(images)
    return writer.finish()


def index_shard(
    steerable: Steerable,
    dataset: Dataset,
    layout: IndexLayout,
    shard: int,
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> Path:
    """The file of one shard, computed in the empty `folder`. Raises as `open_or_build_index` does."""
    key = index_key(steerable, dataset)
    writer = LatentIndexWriter(folder, key, layout, shard_keys=key.shard_keys(layout, dataset.bytes_sha256))
    fill_shard(steerable, dataset, writer, layout.shard_range(shard), advance)
    return folder / shard_name(shard)


def fill_shard(
    steerable: Steerable,
    dataset: Dataset,
    writer: LatentIndexWriter,
    images: range,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Computes the images of one shard; `advance` is told after each batch how many are done."""
    done = 0
    for batch in image_batches(steerable.loaded, dataset, np.asarray(images, dtype=np.int64)):
        state = prefix_of(steerable, batch)
        kept = writer.keeps(batch.numbers)
        embeddings = embeddings_of(steerable, state).float().cpu().numpy()
        activations = state.x.float().cpu().numpy()[kept] if writer.layout.d_in and kept.any() else None
        if writer.layout.dense:
            writer.add_units(batch.numbers, state.x.float().cpu().numpy(), embeddings, activations)
        else:
            sparse = steerable.sae.encode_sparse(state.x.to(steerable.sae.W_dec.dtype).flatten(0, 1))
            writer.add(
                batch.numbers,
                sparse.offsets.cpu().numpy(),
                sparse.latents.cpu().numpy(),
                sparse.values.float().cpu().numpy(),
                embeddings,
                activations,
            )
        done += len(batch.numbers)
        if advance is not None:
            advance(done)
