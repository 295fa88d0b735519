"""Responses of the linear layers of a `transformers` model to sentences: the maximum over their real tokens."""

import warnings
from collections.abc import Callable, Iterator, Sequence
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
    FulcrumError,
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
    reference: str,
    *,
    random_weights: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    called: str | None = None,
    speaks: bool = False,
) -> TextModel:
    """From a local folder or a hub reference that is on this machine; nothing is fetched and no code of it is run.

    `random_weights` keeps architecture and tokenizer: the control of every finding. Anything but float32 warns:
    bfloat16 moves AP by up to 0.016, which makes and unmakes experts. Errors name the model as it is `called`. One that
    `speaks` has its language head: logits in place of hidden states.
    Raises MissingDependency, UnknownModel or CorruptCheckpoint.
    """
    shown = (called or reference)[:200]
    try:
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependency(
            "language models need the package transformers: pip install 'fulcrum[experts]'"
        ) from error
    if dtype != torch.float32:
        warnings.warn(f"responses in {dtype} move AP and flip experts; float32 is exact", stacklevel=2)
    kind = AutoModelForCausalLM if speaks else AutoModel
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(reference, **offline)
        config = AutoConfig.from_pretrained(reference, **offline)
        if random_weights:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = kind.from_config(config, trust_remote_code=False)
        else:
            model, loaded = kind.from_pretrained(
                reference, use_safetensors=True, output_loading_info=True, **offline
            )
            missing = [name for name in loaded["missing_keys"] if not name.startswith("pooler.")]
            if missing:  # transformers would go on with random numbers in them
                raise CorruptCheckpoint(f"{shown!r} lacks {len(missing)} weights, first {sorted(missing)[0]}")
    except (FulcrumError, MemoryError, torch.OutOfMemoryError):
        raise
    except (
        Exception
    ) as error:  # transformers raises whatever a file that is not there or damaged makes it stumble over
        line = (str(error).strip().splitlines() or [repr(error)])[0].replace(reference, shown)
        raise UnknownModel(f"no language model {shown!r} on this machine: {line[:300]}") from error
    return TextModel(model.eval().requires_grad_(False).to(dtype), tokenizer)


@torch.no_grad()
def readable_layers(loaded: TextModel) -> dict[str, int]:
    """Units of each linear layer that answers every token of a text, in the order of the model.

    Others, such as those of experts to which tokens are routed, have no response to a text. Raises UnknownModel for a
    model that cannot be run on a text alone, CorruptCheckpoint for a tokenizer of another one.
    """
    _check_tokenizer(loaded)
    ids = torch.tensor([[0, 1]], device=loaded.model.device)
    shapes: dict[str, tuple[int, ...]] = {}

    def reader(name: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return read

    handles = [loaded.model.get_submodule(n).register_forward_hook(reader(n)) for n in loaded.layers]
    try:
        said = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [repr(error)])[0]
        raise UnknownModel(
            f"a {type(loaded.model).__name__} cannot be run on a text alone: {line[:200]}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    found = {
        name: shapes[name][2]
        for name in loaded.layers
        if len(shapes.get(name, ())) == 3 and shapes[name][:2] == tuple(ids.shape)
    }
    if not found or not isinstance(getattr(said, "last_hidden_state", None), Tensor):
        raise UnknownModel(
            f"a {type(loaded.model).__name__} is no model of texts with linear layers in blocks"
        )
    return found


def _check_tokenizer(loaded: TextModel) -> None:
    """Transformers makes one of no words where the folder has none, and ids beyond the model's are found too late."""
    ids = set(loaded.tokenizer.get_vocab().values()) - set(loaded.tokenizer.all_special_ids)
    if not ids:
        raise UnknownModel(f"this {type(loaded.model).__name__} comes without the words of its tokenizer")
    n_known = int(loaded.model.get_input_embeddings().num_embeddings)
    if max(ids) >= n_known:
        raise CorruptCheckpoint(
            f"the tokenizer gives ids up to {max(ids)}, the model has a vocabulary of {n_known}"
        )


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
    return responses_and_embeddings(
        loaded, texts, layers, batch_size=batch_size, with_special_tokens=with_special_tokens
    )[0]


def responses_and_embeddings(
    loaded: TextModel,
    texts: Sequence[str],
    layers: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    with_special_tokens: bool = False,
    advance: Callable[[int], None] | None = None,
) -> tuple[Float[np.ndarray, "n_units n_texts"], Float[np.ndarray, "n_texts d"]]:
    """`text_responses`, and of each text the mean of its last hidden states over the same tokens.

    `advance` is told how many texts are done.
    """
    chosen = tuple(loaded.layers if layers is None else layers)
    unknown = sorted(set(chosen) - set(loaded.layers))
    if unknown or not chosen:
        raise InvalidInput(
            f"layers {unknown[:3]} are not linear layers of this model: {loaded.layers[:8]} ..."
        )
    out: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None
    done = 0
    for batch in _batches(loaded, texts, batch_size, with_special_tokens):
        found, hidden = _run(loaded.model, chosen, batch.ids, batch.looked_at)
        mean = _mean_over(hidden, batch.looked_at)
        if out is None or embeddings is None:
            out = np.empty((found.shape[1], len(texts)), dtype=np.float32)
            embeddings = np.empty((len(texts), mean.shape[1]), dtype=np.float32)
        out[:, batch.numbers] = found.T.cpu().numpy()
        embeddings[batch.numbers] = mean.cpu().numpy()
        done += len(batch.numbers)
        if advance is not None:
            advance(done)
    assert out is not None  # there is a text
    assert embeddings is not None
    if not (np.isfinite(out).all() and np.isfinite(embeddings).all()):
        raise ComputationFailed("responses hold nan or infinity")
    return out, embeddings


def text_embeddings(
    loaded: TextModel, texts: Sequence[str], batch_size: int = 32
) -> Float[np.ndarray, "n_texts d"]:
    """Of each text the mean of its last hidden states over its own tokens. Raises InvalidInput."""
    rows: dict[int, NDArray[np.float32]] = {}
    for batch in _batches(loaded, texts, batch_size, False):
        _, hidden = _run(loaded.model, (), batch.ids, batch.looked_at)
        rows |= zip(batch.numbers, _mean_over(hidden, batch.looked_at).cpu().numpy(), strict=True)
    return np.stack([rows[number] for number in range(len(texts))])


def check_texts(loaded: TextModel, texts: Sequence[str]) -> None:
    """Runs none of them. Raises InvalidInput for an empty text or one that is too long."""
    for text in texts:
        _tokens(loaded, text, False)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Texts of one length."""

    numbers: list[int]
    ids: Tensor
    looked_at: Tensor


def _batches(
    loaded: TextModel, texts: Sequence[str], batch_size: int, with_special_tokens: bool
) -> Iterator[_Batch]:
    if not texts:
        raise InvalidInput("there is no text")
    tokens = [_tokens(loaded, text, with_special_tokens) for text in texts]
    by_length: dict[int, list[int]] = {}
    for number, (ids, _) in enumerate(tokens):
        by_length.setdefault(len(ids), []).append(number)
    device = loaded.model.device
    for numbers in by_length.values():
        for start in range(0, len(numbers), batch_size):
            some = numbers[start : start + batch_size]
            yield _Batch(
                some,
                torch.tensor([tokens[n][0] for n in some], device=device),
                torch.tensor([tokens[n][1] for n in some], device=device),
            )


def _tokens(loaded: TextModel, text: str, with_special_tokens: bool) -> tuple[list[int], list[bool]]:
    """Ids, and which of them are looked at."""
    if not text.strip():
        raise InvalidInput("a sentence is empty")
    encoded = loaded.tokenizer(text, return_special_tokens_mask=True)
    ids = list(encoded["input_ids"])
    looked_at = [with_special_tokens or not special for special in encoded["special_tokens_mask"]]
    longest = longest_text(loaded)
    if longest is not None and len(ids) > longest:
        raise InvalidInput(f"{text[:40]!r} ... has {len(ids)} tokens, the model takes {longest}")
    if not any(looked_at):
        raise InvalidInput(f"{text[:40]!r} has no token but special ones")
    return ids, looked_at


def longest_text(loaded: TextModel) -> int | None:
    """Tokens of the longest text, special ones among them; None where nothing is said."""
    said = [
        getattr(loaded.model.config, "max_position_embeddings", None),
        # RoBERTa has two positions that no text can use.
        loaded.tokenizer.model_max_length,
    ]
    return min((int(n) for n in said if n), default=None)


def maxima_over_tokens(model: Any, layers: Sequence[str], ids: Tensor, looked_at: Tensor) -> Tensor:
    """(n_texts, n_units) float32 of one batch of ids without padding; `looked_at` (n_texts, n_tokens) are the tokens
    that count.
    """
    return _run(model, layers, ids, looked_at)[0]


def _run(model: Any, layers: Sequence[str], ids: Tensor, looked_at: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima, and the model's first output: hidden states where it has no head."""
    found: dict[str, Tensor] = {}

    def reader(name: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            hidden = output.detach().float().masked_fill(~looked_at[..., None], -torch.inf)
            found[name] = hidden.amax(dim=1)

        return read

    handles = [model.get_submodule(name).register_forward_hook(reader(name)) for name in layers]
    try:
        with torch.no_grad():
            said = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    maxima = [found[name] for name in layers]
    return torch.cat(maxima, dim=1) if maxima else torch.empty(len(ids), 0), said[0]


def _mean_over(hidden: Tensor, looked_at: Tensor) -> Tensor:
    weights = looked_at.float() / looked_at.float().sum(dim=1, keepdim=True)
    return torch.einsum("ntd,nt->nd", hidden.float(), weights)
