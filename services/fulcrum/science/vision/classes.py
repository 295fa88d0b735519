"""Zero-shot classes: prompts to class embeddings, embeddings to logits and probabilities."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from fulcrum.domain.errors import ComputationFailed, EmptyPrompts
from fulcrum.domain.tasks import ClassSet
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.towers import embed_images


def encode_texts(
    loaded: LoadedModel, texts: Sequence[str], batch: int = 256
) -> Float[Tensor, "n_texts d_embed"]:
    """Unit-norm float32 embeddings in the order of the texts, on the model's device; equal texts run once.

    Raises EmptyPrompts, InvalidPrompt (longer than the context) and ComputationFailed.
    """
    if not texts:
        raise EmptyPrompts("there is no text to encode")
    unique = list(dict.fromkeys(texts))
    rows = []
    for start in range(0, len(unique), batch):
        rows.append(encode_tokens(loaded, loaded.tokenizer(unique[start : start + batch])))
    number = {text: row for row, text in enumerate(unique)}
    return torch.cat(rows)[torch.tensor([number[text] for text in texts], device=loaded.device)]


def encode_tokens(loaded: LoadedModel, tokens: Int[Tensor, "n context_length"]) -> Float[Tensor, "n d_embed"]:
    """Unit-norm float32 embeddings of tokenised texts, on the model's device. Raises ComputationFailed."""
    # no_grad and not inference_mode: targets multiply these with embeddings that need a gradient.
    with torch.no_grad():
        return _unit(loaded.model.encode_text(tokens.to(loaded.device), normalize=False), "text")


def encode_class_set(
    loaded: LoadedModel, class_set: ClassSet, batch: int = 256
) -> Float[Tensor, "n_classes d_embed"]:
    """Unit-norm class embeddings: normalised mean over templates of normalised embeddings (CLIP, 3.1.4).

    Raises as `encode_texts` does.
    """
    prompts = class_set.prompts()
    return class_means(class_set, encode_texts(loaded, [prompt for row in prompts for prompt in row], batch))


def class_means(
    class_set: ClassSet, embeds: Float[Tensor, "n_prompts d_embed"]
) -> Float[Tensor, "n_classes d_embed"]:
    """As `encode_class_set`, from the embeddings of all prompts, class by class. Raises ComputationFailed."""
    # The class is the outer index of prompts(); the other way round classes mix, silently.
    per_class = embeds.view(len(class_set.names), len(class_set.templates), -1)
    return _unit(per_class.mean(dim=1), "class")


def encode_images(
    loaded: LoadedModel, pixels: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n d_embed"]:
    """Unit-norm float32 embeddings of preprocessed images, without splitting the tower."""
    with torch.no_grad():
        return _unit(embed_images(loaded.model, pixels.to(loaded.device, loaded.dtype)), "image")


def logits(
    loaded: LoadedModel,
    image_embeds: Float[Tensor, "n_images d_embed"],
    class_embeds: Float[Tensor, "n_classes d_embed"],
) -> Float[Tensor, "n_images n_classes"]:
    """`exp(logit_scale) * cosine + logit_bias`, float32, differentiable.

    Embeddings need not be normalised, so what a suffix returns can be passed as it is.
    """
    cosine = normalize(image_embeds.float(), dim=-1) @ normalize(class_embeds.float(), dim=-1).T
    scaled = loaded.logit_scale * cosine
    return scaled if loaded.logit_bias is None else scaled + loaded.logit_bias


def probs(
    loaded: LoadedModel, class_logits: Float[Tensor, "n_images n_classes"]
) -> Float[Tensor, "n_images n_classes"]:
    """Softmax over the classes, or for each class a sigmoid by itself (`loaded.probs_kind`)."""
    return class_logits.softmax(dim=-1) if loaded.probs_kind == "softmax" else class_logits.sigmoid()


def _unit(embeds: Tensor, what: str) -> Tensor:
    embeds = embeds.float()
    norm = torch.linalg.vector_norm(embeds, dim=-1, keepdim=True)
    # Zero as well: templates whose embeddings cancel have no direction, and normalize() would return zeros.
    if not bool(torch.isfinite(norm).all()) or not bool((norm > 0).all()):
        raise ComputationFailed(f"an embedding ({what}) is not finite or has length zero")
    unit: Tensor = embeds / norm
    return unit
