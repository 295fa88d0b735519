"""Responses of the linear layers of a `transformers` model to sentences: the maximum over their real tokens."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from fulcrum.domain.errors import (
    ComputationFailed,
    CorruptCheckpoint,
    InvalidInput,
    MissingDependency,
    UnknownModel,
)


@dataclass(frozen=True, eq=False)
class TextModel:
    """A model in eval mode with its tokenizer; made by `load_text_model`."""

    model: Any
    tokenizer: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """Linear layers inside the blocks, in the order of the model: MLP in and out, attention projections."""
        return tuple(
            name
            for name, module in self.model.named_modules()
            # GPT-2 writes its linear layers as Conv1D.
            if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
            and any(part.isdigit() for part in name.split("."))
        )


def load_text_model(
    reference: str, *, random_weights: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32
) -> TextModel:
    """From a local folder or a hub reference that is on this machine; nothing is fetched and no code of it is run.

    `random_weights` keeps architecture and tokenizer: the control of every finding. Anything but float32 warns:
    bfloat16 moves AP by up to 0.016, which makes and unmakes experts.
    Raises MissingDependency, UnknownModel or CorruptCheckpoint.
    """
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingDependency(
            "language models need the package transformers: pip install 'fulcrum[experts]'"
        ) from error
    if dtype != torch.float32:
        warnings.warn(f"responses in {dtype} move AP and flip experts; float32 is exact", stacklevel=2)
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(reference, **offline)
        config = AutoConfig.from_pretrained(reference, **offline)
        if random_weights:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            model, loaded = AutoModel.from_pretrained(
                reference, use_safetensors=True, output_loading_info=True, **offline
            )
            missing = [name for name in loaded["missing_keys"] if not name.startswith("pooler.")]
            if missing:  # transformers would go on with random numbers in them
                raise CorruptCheckpoint(
                    f"{reference[:80]!r} lacks {len(missing)} weights, first {sorted(missing)[0]}"
                )
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [repr(error)])[0]
        raise UnknownModel(f"no language model {reference[:80]!r} on this machine: {line}") from error
    return TextModel(model.eval().requires_grad_(False).to(dtype), tokenizer)


def text_responses(
    loaded: TextModel,
    texts: Sequence[str],
    layers: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    with_special_tokens: bool = False,
) -> Float[np.ndarray, "n_units n_texts"]:
    """(n_units, n_texts) float32, layer after layer: the largest output of each unit over a text's own tokens.

    Texts are run beside others of the same length, so there is no padding that could be looked at, and neither the
    side of it nor the order matters. Special tokens ([CLS], end of text) are run and not looked at unless asked for.
    Raises InvalidInput for an empty text, one too long, or unknown layers; ComputationFailed for nan.
    """
    chosen = tuple(loaded.layers if layers is None else layers)
    unknown = sorted(set(chosen) - set(loaded.layers))
    if unknown or not chosen:
        raise InvalidInput(
            f"layers {unknown[:3]} are not linear layers of this model: {loaded.layers[:8]} ..."
        )
    if not texts:
        raise InvalidInput("there is no text")
    tokens = [_tokens(loaded, text, with_special_tokens) for text in texts]
    by_length: dict[int, list[int]] = {}
    for number, (ids, _) in enumerate(tokens):
        by_length.setdefault(len(ids), []).append(number)
    out: NDArray[np.float32] | None = None
    for numbers in by_length.values():
        for start in range(0, len(numbers), batch_size):
            batch = numbers[start : start + batch_size]
            found = maxima_over_tokens(
                loaded.model,
                chosen,
                ids=torch.tensor([tokens[n][0] for n in batch]),
                looked_at=torch.tensor([tokens[n][1] for n in batch]),
            )
            if out is None:
                out = np.empty((found.shape[1], len(texts)), dtype=np.float32)
            out[:, batch] = found.T.numpy()
    assert out is not None  # there is a text
    if not np.isfinite(out).all():
        raise ComputationFailed("responses hold nan or infinity")
    return out


def _tokens(loaded: TextModel, text: str, with_special_tokens: bool) -> tuple[list[int], list[bool]]:
    """Ids, and which of them are looked at."""
    if not text.strip():
        raise InvalidInput("a sentence is empty")
    encoded = loaded.tokenizer(text, return_special_tokens_mask=True)
    ids = list(encoded["input_ids"])
    looked_at = [with_special_tokens or not special for special in encoded["special_tokens_mask"]]
    longest = getattr(loaded.model.config, "max_position_embeddings", len(ids))
    if len(ids) > longest:
        raise InvalidInput(f"{text[:40]!r} ... has {len(ids)} tokens, the model takes {longest}")
    if not any(looked_at):
        raise InvalidInput(f"{text[:40]!r} has no token but special ones")
    return ids, looked_at


def maxima_over_tokens(model: Any, layers: Sequence[str], ids: Tensor, looked_at: Tensor) -> Tensor:
    """(n_texts, n_units) float32 of one batch of ids without padding; `looked_at` (n_texts, n_tokens) are the tokens
    that count.
    """
    found: dict[str, Tensor] = {}

    def reader(name: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            hidden = output.detach().float().masked_fill(~looked_at[..., None], -torch.inf)
            found[name] = hidden.amax(dim=1)

        return read

    handles = [model.get_submodule(name).register_forward_hook(reader(name)) for name in layers]
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([found[name] for name in layers], dim=1)
