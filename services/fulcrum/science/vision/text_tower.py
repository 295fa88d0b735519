"""OpenCLIP's own text transformers, split like the vision towers."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidInput, UnknownModel
from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.vision.backend import CLIP, OpenClipModel, TextTransformer, text_global_pool
from fulcrum.science.vision.openclip_tower import OpenClipBlocks
from fulcrum.science.vision.split import HookState
from fulcrum.science.vision.stack import check_hook_point, run_from, run_to


class TextStack(OpenClipBlocks):
    """Blocks of a text transformer. The mask may depend on the tokens (CoCa), so both ends need them."""

    d_model: int
    context_length: int

    @abstractmethod
    def embed(self, tokens: Int[Tensor, "batch context"]) -> tuple[Tensor, Tensor | None]:
        """Input of block 0 and the additive attention mask (None: every token sees every other)."""

    @abstractmethod
    def pooled_position(self, tokens: Int[Tensor, "batch context"], n_tokens: int) -> Int[Tensor, " batch"]:
        """Position whose activation becomes the embedding."""

    @abstractmethod
    def head(self, x: Tensor, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch d_embed"]:
        """Final norm, pooling and projection."""


class _ClipText(TextStack):
    """The text tower of `CLIP`, whose parts are attributes of the model itself."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.transformer)
        self._model = model
        self.d_model = model.transformer.width
        self.context_length = model.context_length

    def embed(self, tokens: Int[Tensor, "batch context"]) -> tuple[Tensor, Tensor | None]:
        """Token and position embeddings, causal mask."""
        model = self._model
        x = model.token_embedding(tokens).to(self.dtype)
        return x + model.positional_embedding.to(self.dtype), model.attn_mask

    def pooled_position(self, tokens: Int[Tensor, "batch context"], n_tokens: int) -> Int[Tensor, " batch"]:
        """By the pooling of the configuration."""
        return _position(
            tokens, n_tokens, self._model.text_pool_type, getattr(self._model, "text_eos_id", None)
        )

    def head(self, x: Tensor, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch d_embed"]:
        """`ln_final`, pooling, projection."""
        model = self._model
        x = text_global_pool(
            model.ln_final(x), tokens, model.text_pool_type, eos_token_id=getattr(model, "text_eos_id", None)
        )
        return _project(x, model.text_projection)


class _TransformerText(TextStack):
    """`TextTransformer`, the `text` of `CustomTextCLIP` and `CoCa`."""

    def __init__(self, text: Any) -> None:
        super().__init__(text.transformer)
        self._text = text
        self.d_model = text.width
        self.context_length = text.context_length

    def embed(self, tokens: Int[Tensor, "batch context"]) -> tuple[Tensor, Tensor | None]:
        """Token and position embeddings, CoCa's class token at the end, and the mask."""
        x, mask = self._text._embeds(tokens)
        return x, mask

    def pooled_position(self, tokens: Int[Tensor, "batch context"], n_tokens: int) -> Int[Tensor, " batch"]:
        """CoCa pools its class token, the others as configured."""
        pool_type = self._text.pool_type if self._text.cls_emb is None else "last"
        return _position(tokens, n_tokens, pool_type, getattr(self._text, "eos_id", None))

    def head(self, x: Tensor, tokens: Int[Tensor, "batch context"]) -> Float[Tensor, "batch d_embed"]:
        """`ln_final` before pooling, or after it where a class token is pooled; projection."""
        text = self._text
        if text.cls_emb is not None:
            x = text.ln_final(text_global_pool(x, pool_type="last"))
        else:
            eos = getattr(text, "eos_id", None)
            x = text_global_pool(text.ln_final(x), tokens, pool_type=text.pool_type, eos_token_id=eos)
        return _project(x, text.text_projection)


class TextSplit:
    """A text tower cut at a hook point.

    `suffix(prefix(tokens), tokens)` equals `encode_text(tokens)`, unnormalised, to float tolerance.
    """

    def __init__(self, stack: TextStack, hook_point: HookPoint) -> None:
        check_hook_point(hook_point, stack.n_blocks, stack.sites)
        self.hook_point = hook_point
        self.d_in = stack.mlp_width(hook_point.block) if hook_point.site == "mlp_in" else stack.d_model
        self._stack = stack

    def prefix(self, tokens: Int[Tensor, "batch context"]) -> HookState:
        """Activations at the hook point; no later layer runs. CoCa adds a class token behind the others."""
        x, mask = self._stack.embed(tokens)
        return run_to(self._stack, self.hook_point, x, mask)

    def suffix(
        self, state: HookState, tokens: Int[Tensor, "batch context"]
    ) -> Float[Tensor, "batch d_embed"]:
        """Text embedding, not normalised; row i of the state belongs to row i of the tokens.

        Raises InvalidInput when their numbers differ.
        """
        if state.x.shape[0] != tokens.shape[0]:
            raise InvalidInput(
                f"{state.x.shape[0]} rows of activations with {tokens.shape[0]} rows of tokens"
            )
        mask = self._stack.embed(tokens)[1]
        return self._stack.head(run_from(self._stack, self.hook_point, state, mask), tokens)

    def reaches_output(self, tokens: Int[Tensor, "batch context"]) -> Bool[Tensor, "batch tokens"]:
        """Which tokens at the hook point have a causal path to the embedding of their text.

        Behind a causal mask nothing after the pooled token has one, after the last block only that token.
        """
        x, mask = self._stack.embed(tokens)
        batch, n_tokens = x.shape[:2]
        sees = torch.ones(batch, n_tokens, n_tokens, dtype=torch.bool, device=x.device)
        if mask is not None:
            # CoCa's mask has one entry for each head, all alike.
            allowed = mask > float("-inf")
            sees = (
                allowed.view(batch, -1, n_tokens, n_tokens)[:, 0]
                if mask.ndim == 3
                else allowed.expand_as(sees)
            )
        position = self._stack.pooled_position(tokens, n_tokens)
        reached = nn.functional.one_hot(position, n_tokens).bool()
        for _ in range(self._stack.n_blocks - 1 - self.hook_point.block):
            reached = reached | (reached.unsqueeze(-1) & sees).any(dim=1)
        return reached


def text_stack(model: OpenClipModel) -> TextStack:
    """The blocks of the text tower; raises UnknownModel for towers of transformers (Hugging Face)."""
    if isinstance(model, CLIP):
        return _ClipText(model)
    if isinstance(model.text, TextTransformer):
        return _TransformerText(model.text)
    raise UnknownModel(
        f"a text tower of type {type(model.text).__name__} is not split; "
        "supported: the text transformers of OpenCLIP"
    )


def _position(tokens: Tensor, n_tokens: int, pool_type: str, eos_id: int | None) -> Tensor:
    """As `open_clip.transformer.text_global_pool` picks it."""
    match pool_type:
        case "first":
            return torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        case "last":
            return torch.full((len(tokens),), n_tokens - 1, device=tokens.device)
        case "argmax":
            return tokens.argmax(dim=-1)
        case "eos":
            return tokens.eq(-1 if eos_id is None else eos_id).int().argmax(dim=-1)
        case other:
            raise UnknownModel(f"a text tower with pooling {other!r} gives no single embedding")


def _project(x: Tensor, projection: Any) -> Tensor:
    if projection is None:
        return x
    out: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return out
