"""Texts to token ids, with a check that nothing is cut off."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, InvalidPrompt, MissingDependency
from fulcrum.science.vision.backend import open_clip
from fulcrum.science.vision.sources import ModelSource

# What a configuration may pass on. `trust_remote_code`, for one, would run code from a downloaded folder.
_ALLOWED_OPTIONS = {
    "clean",
    "strip_sep_token",
    "language",
    "bpe_path",
    "additional_special_tokens",
    "use_fast",
}


class PromptTokenizer:
    """Tokenizer of one model, made when the first text comes (some need files that take long to load).

    `kind` is "model", or "bytes" for the stand-in of random weights: there no text means anything, and the
    real tokenizer is not worth a download. Real weights never meet the stand-in.
    """

    def __init__(self, source: ModelSource) -> None:
        text = source.config["text_cfg"]
        self.context_length = int(text.get("context_length", 77))
        self.vocab_size = int(text.get("vocab_size", 49408))
        self._source = source
        self._text = text
        self._lock = threading.Lock()
        self._made: _Bytes | _Simple | _HuggingFace | None = None

    @property
    def kind(self) -> Literal["model", "bytes"]:
        """Loads the tokenizer if need be."""
        return "bytes" if isinstance(self._tokenizer(), _Bytes) else "model"

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n_texts context"]:
        """Raises InvalidPrompt for a text with more tokens than the context: CLIP would cut it silently.

        Raises MissingDependency when the tokenizer of real weights is not here and cannot be fetched.
        """
        tokenizer = self._tokenizer()
        for text, n_tokens in zip(texts, tokenizer.lengths(texts), strict=True):
            if n_tokens > self.context_length:
                raise InvalidPrompt(
                    f"prompt {text[:60]!r}{'...' if len(text) > 60 else ''} has {n_tokens} tokens, "
                    f"the model reads at most {self.context_length}"
                )
        tokens = tokenizer.encode(texts)
        if tokens.numel() and int(tokens.max()) >= self.vocab_size:
            raise CorruptCheckpoint(
                f"the tokenizer gives ids up to {int(tokens.max())}, "
                f"the model has a vocabulary of {self.vocab_size}"
            )
        return tokens

    def words(self, texts: Sequence[str]) -> Bool[Tensor, "n_texts context"]:
        """Which tokens of `self(texts)` are of the text itself: neither begin, end, class nor padding."""
        return self._tokenizer().words(texts, self.context_length)

    def _tokenizer(self) -> "_Bytes | _Simple | _HuggingFace":
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> "_Bytes | _Simple | _HuggingFace":
        options = dict(self._text.get("tokenizer_kwargs") or {})
        unknown = sorted(options.keys() - _ALLOWED_OPTIONS)
        if unknown:
            raise CorruptCheckpoint(
                f"tokenizer options {unknown} are not allowed; allowed: {sorted(_ALLOWED_OPTIONS)}"
            )
        name = self._text.get("hf_tokenizer_name") or ""
        if not name:
            if "bpe_path" in options:
                options["bpe_path"] = str(_inside(self._source.folder, str(options["bpe_path"])))
            try:
                return _Simple(open_clip.SimpleTokenizer(context_length=self.context_length, **options))
            except (OSError, EOFError, UnicodeDecodeError, TypeError, AssertionError) as error:
                raise CorruptCheckpoint(f"the model's tokenizer cannot be read: {error}") from error
        random = self._source.ref.random_weights
        try:
            return _HuggingFace(
                open_clip.tokenizer.HFTokenizer(
                    str(self._source.folder or name),
                    context_length=self.context_length,
                    tokenizer_mode=self._text.get("tokenizer_mode"),
                    local_files_only=random,
                    **options,
                )
            )
        except Exception as error:  # transformers raises many kinds for a tokenizer that is not there
            if random:
                return _Bytes(self._text, self.context_length, self.vocab_size)
            raise MissingDependency(
                f"the tokenizer {name!r} of {self._source.ref.model_name!r} is not on this machine "
                f"and cannot be fetched: {error}"
            ) from error


class _Simple:
    """CLIP's byte-pair encoding."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(self._tokenizer.encode(text)) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._tokenizer(list(texts))
        return tokens

    def words(self, texts: Sequence[str], context_length: int) -> Tensor:
        return _between_begin_and_end(self.lengths(texts), context_length)


class _HuggingFace:
    """A tokenizer of transformers as OpenCLIP wraps it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def lengths(self, texts: Sequence[str]) -> list[int]:
        clean = [self._tokenizer.clean_fn(text) for text in texts]
        if self._tokenizer.tokenizer_mode == "clips":  # begin, end and class token are added by OpenCLIP
            ids = self._tokenizer.tokenizer(clean, add_special_tokens=False).input_ids
            return [len(row) + 3 for row in ids]
        return [len(row) for row in self._tokenizer.tokenizer(clean, truncation=False).input_ids]

    def encode(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._tokenizer(list(texts))
        return tokens

    def words(self, texts: Sequence[str], context_length: int) -> Tensor:
        if self._tokenizer.tokenizer_mode == "clips":
            return _between_begin_and_end([n - 1 for n in self.lengths(texts)], context_length)
        mask = torch.zeros((len(texts), context_length), dtype=torch.bool)
        for row, text in zip(mask, texts, strict=True):
            found = self._tokenizer.tokenizer(
                self._tokenizer.clean_fn(text),
                max_length=context_length,
                padding="max_length",
                truncation=True,
                return_special_tokens_mask=True,
            )
            special = torch.tensor(found["special_tokens_mask"], dtype=torch.bool)
            row[:] = ~special & torch.tensor(found["attention_mask"], dtype=torch.bool)
        return mask


class _Bytes:
    """UTF-8 bytes as tokens: begin, one id for each byte, end, padding. Stand-in for random weights only."""

    _FIRST_BYTE = (
        3  # 0 pads, 1 and 2 are left for the begin and end tokens of small-vocabulary configurations
    )

    def __init__(self, text_cfg: dict[str, Any], context_length: int, vocab_size: int) -> None:
        self._context_length = context_length
        # CLIP pools at the largest id, so the end token must be the last of the vocabulary there.
        eos_pooled = text_cfg.get("pool_type") == "eos"
        self._end = int(text_cfg.get("eos_id", 2)) if eos_pooled else vocab_size - 1
        self._begin = vocab_size - 2
        self._n_ids = min(256, vocab_size - 2 - self._FIRST_BYTE)
        self._pad = int(text_cfg.get("pad_id", 0))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> Tensor:
        tokens = torch.full((len(texts), self._context_length), self._pad, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self._begin, *(self._FIRST_BYTE + b % self._n_ids for b in text.encode()), self._end]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def words(self, texts: Sequence[str], context_length: int) -> Tensor:
        return _between_begin_and_end(self.lengths(texts), context_length)


def _between_begin_and_end(lengths: Sequence[int], context_length: int) -> Tensor:
    place = torch.arange(context_length)
    ends = torch.tensor(lengths)[:, None] - 1
    return (place >= 1) & (place < ends)


def _inside(folder: Path | None, name: str) -> Path:
    """The file of that name in the model's folder; raises CorruptCheckpoint when it leads out of it."""
    if folder is None:
        raise CorruptCheckpoint(f"bpe_path {name!r} is only allowed in a 'local-dir:' model")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise CorruptCheckpoint(f"bpe_path {name!r} leads out of the model's folder")
    if not path.is_file():
        raise CorruptCheckpoint(f"the model's folder holds no {name!r}, which bpe_path names")
    return path
