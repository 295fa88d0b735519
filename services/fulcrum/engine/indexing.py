"""The sparse latent index of a data set: built once, read by every validation, search and concept page."""

from pathlib import Path

import numpy as np

from fulcrum.datasets.index import IndexKey, IndexLayout, LatentIndex, LatentIndexWriter
from fulcrum.datasets.index.reader import INDEX_FILE
from fulcrum.datasets.samples import Dataset
from fulcrum.engine.dataset_runs import Progress, embeddings_of, prefix_of
from fulcrum.engine.image_batches import image_batches
from fulcrum.engine.residency import Steerable


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


def open_or_build_index(
    steerable: Steerable,
    dataset: Dataset,
    folder: Path,
    progress: Progress | None = None,
    images_per_shard: int = 1024,
) -> LatentIndex:
    """The index in `folder/<key>`, built (or continued, where a build was interrupted) if it is not there.

    One prefix, one sparse encoding and one suffix pass per image. Memory: one shard.
    Raises UnreadableImage, MissingFiles, CorruptIndex.
    """
    key = index_key(steerable, dataset)
    place = folder / key.sha256[:16]
    if (place / INDEX_FILE).exists():
        return LatentIndex.open(place, key)
    layout = IndexLayout(
        n_images=len(dataset),
        n_tokens=steerable.tower.n_tokens,
        d_sae=steerable.sae.config.d_sae,
        has_cls=steerable.tower.has_cls,
        d_embed=steerable.loaded.info.d_embed,
        images_per_shard=images_per_shard,
    )
    writer = LatentIndexWriter(place, key, layout)
    wanted = np.array([n for part in writer.todo() for n in part], dtype=np.int64)
    done = len(dataset) - len(wanted)
    for batch in image_batches(steerable.loaded, dataset, wanted):
        state = prefix_of(steerable, batch)
        sparse = steerable.sae.encode_sparse(state.x.to(steerable.sae.W_dec.dtype).flatten(0, 1))
        writer.add(
            batch.numbers,
            sparse.offsets.cpu().numpy(),
            sparse.latents.cpu().numpy(),
            sparse.values.float().cpu().numpy(),
            embeddings_of(steerable, state).float().cpu().numpy(),
        )
        done += len(batch.numbers)
        if progress is not None:
            progress(done, len(dataset))
    return writer.finish()
