"""OpenCLIP's own `VisionTransformer`, and the blocks it shares with OpenCLIP's text transformers."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.domain.errors import UnknownModel
from fulcrum.science.vision.backend import ResidualAttentionBlock
from fulcrum.science.vision.stack import BlockStack, Reach, TowerShape, VisionStack


class OpenClipBlocks(BlockStack):
    """`Transformer` of OpenCLIP with default or custom blocks, batch first or sequence first.

    `context` is the additive attention mask, or None.
    """

    def __init__(self, transformer: Any) -> None:
        self.n_blocks = len(transformer.resblocks)
        self._transformer = transformer

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self._transformer.get_cast_dtype()
        return dtype

    def run_block(self, block: int, x: Tensor, context: Any) -> Tensor:
        """The module itself."""
        return self._turn(self._transformer.resblocks[block](self._turn(x), attn_mask=context))

    def attention(self, block: int, x: Tensor, context: Any) -> Tensor:
        """`ls_1([ln_attn] attn(ln_1(x)))`."""
        module = self._transformer.resblocks[block]
        normed = module.ln_1(self._turn(x))
        if hasattr(module, "ln_attn"):  # CustomResidualAttentionBlock
            out = module.ln_attn(module.attn(normed, attn_mask=context))
        else:
            out = module.attention(q_x=normed, attn_mask=context)
        return self._turn(module.ls_1(out))

    def mlp_module(self, block: int) -> nn.Module:
        """`mlp` of `ls_2(mlp(ln_2(x)))`."""
        module: nn.Module = self._transformer.resblocks[block].mlp
        return module

    def mlp_reads(self, block: int, x: Tensor) -> Tensor:
        """`ln_2(x)`."""
        out: Tensor = self._transformer.resblocks[block].ln_2(x)
        return out

    def mlp_adds(self, block: int, out: Tensor) -> Tensor:
        """`ls_2(out)`."""
        added: Tensor = self._transformer.resblocks[block].ls_2(out)
        return added

    def _turn(self, x: Tensor) -> Tensor:
        return x if self._transformer.batch_first else x.transpose(0, 1)


class OpenClipVision(OpenClipBlocks, VisionStack):
    """All variants of `open_clip.transformer.VisionTransformer`: CLS, average and attentional pooling."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual.transformer)
        pooling, pooled = _pooling(visual)
        self._visual = visual
        self.shape = TowerShape(
            n_blocks=self.n_blocks,
            d_model=visual.transformer.width,
            grid=(visual.grid_size[0], visual.grid_size[1]),
            n_prefix_tokens=1,
            has_cls=True,
            pooling=pooling,
            pooled=pooled,
        )

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens d_model"]:
        """Patches, CLS, positions, patch dropout (idle in eval mode) and `ln_pre`."""
        weight = self._visual.conv1.weight
        x: Tensor = self._visual._embeds(images.to(weight.device, weight.dtype))
        return x

    def context(self) -> None:
        """Vision blocks have no mask."""
        return

    def run_last_block(self, x: Tensor, context: Any) -> Tensor:
        """Where only CLS is pooled, its query against all keys: five sixths of the block's work are for nobody."""
        module = self._transformer.resblocks[-1]
        if self.shape.pooled != "cls" or type(module) is not ResidualAttentionBlock:
            return super().run_last_block(x, context)
        x = self._turn(x)
        normed = module.ln_1(x)
        first = self.tokens_of_head if self._transformer.batch_first else _first_of_sequence
        answers = module.attention(q_x=first(normed), k_x=normed, v_x=normed, attn_mask=context)
        cls = self._turn(first(x) + module.ls_1(answers))
        return cls + self.mlp(self.n_blocks - 1, cls)

    def tokens_of_head(self, x: Tensor) -> Tensor:
        """CLS alone, or all."""
        return x[:, :1] if self.shape.pooled == "cls" else x

    def head(self, x: Float[Tensor, "batch tokens d_model"]) -> Float[Tensor, "batch d_embed"]:
        """`ln_post` before or after pooling, as configured, then the projection."""
        pooled: Tensor = self._visual._pool(x)[0]
        if self._visual.attn_pool is not None and self._visual.attn_pool_contrastive is not None:
            pooled = pooled[:, 0]  # the answer to its one query; OpenCLIP leaves the query's dimension in
        return pooled if self._visual.proj is None else pooled @ self._visual.proj


def _first_of_sequence(x: Tensor) -> Tensor:
    return x[:1]


def _pooling(visual: Any) -> tuple[str, Reach]:
    if visual.attn_pool is not None:
        # Queries attend to every token, CLS included; what is pooled afterwards are the queries' answers.
        return "attentional", "all"
    match visual.pool_type:
        case "tok":
            return "tok", "cls"
        case "avg":
            return "avg", "patches"
        case other:
            raise UnknownModel(
                f"a vision tower with pooling {other!r} gives no single embedding: allowed are tok, avg"
            )
