"""Images and texts to embeddings, in forwards shared with other requests where there is a batcher."""

import sys
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from fulcrum.domain.errors import EmptyPrompts, UnknownModel
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.batch_queue import Rows
from fulcrum.engine.batching import Batcher
from fulcrum.engine.cores import cores_for
from fulcrum.engine.scopes import deterministically
from fulcrum.science.vision import classes
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.towers import vision_stack

_TEXTS_AT_ONCE = 256


def computed_by(loaded: LoadedModel) -> Hashable:
    """What a forward of this model depends on, for batches and caches that several models share.

    Equal weights are not equal models: a configuration decides about activation functions and attention heads,
    which have no weights.
    """
    return loaded.info.ref, loaded.info.weights_sha256


def embed_images(loaded: LoadedModel, pixels: Tensor, batcher: Batcher | None) -> Tensor:
    """Unit-norm (n, d_embed) of preprocessed images. Raises ComputationFailed."""
    if batcher is None:
        return classes.encode_images(loaded, pixels)
    product = _widest_product(loaded)

    def run(rows: Rows) -> Rows:
        with cores_for(len(rows[0]) * product):
            return (classes.encode_images(loaded, rows[0]),)

    return batcher.submit((computed_by(loaded), "image"), (pixels,), run, product)[0]


def _widest_product(loaded: LoadedModel) -> int:
    try:
        return vision_stack(loaded.model).shape.widest_product
    except UnknownModel:  # a tower without blocks of tokens: nothing is known of its products
        return sys.maxsize


def embed_texts(loaded: LoadedModel, texts: Sequence[str], batcher: Batcher | None) -> Tensor:
    """Unit-norm (n, d_embed) in the order of the texts; equal texts run once. Raises EmptyPrompts, InvalidPrompt."""
    if batcher is None:
        return classes.encode_texts(loaded, texts)
    if not texts:
        raise EmptyPrompts("there is no text to encode")
    name = (computed_by(loaded), "text")
    unique = list(dict.fromkeys(texts))
    parts: list[Tensor] = []
    for start in range(0, len(unique), _TEXTS_AT_ONCE):
        tokens = loaded.tokenizer(unique[start : start + _TEXTS_AT_ONCE]).to(loaded.device)
        parts += batcher.submit(name, (tokens,), lambda rows: (classes.encode_tokens(loaded, rows[0]),))
    number = {text: row for row, text in enumerate(unique)}
    return torch.cat(parts)[torch.tensor([number[text] for text in texts], device=loaded.device)]


def embed_class_set(loaded: LoadedModel, task: ClassSet, batcher: Batcher | None) -> Tensor:
    """Unit-norm (n_classes, d_embed), the same bits whoever asks first. Raises InvalidPrompt."""
    if batcher is None:
        return classes.encode_class_set(loaded, task)
    with deterministically():
        prompts = [prompt for row in task.prompts() for prompt in row]
        return classes.class_means(task, embed_texts(loaded, prompts, batcher))
