"""Vision transformers of timm inside OpenCLIP's `TimmModel`: SigLIP, EVA, Perception Encoder."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.domain.errors import UnknownModel
from fulcrum.domain.hook_points import Site
from fulcrum.science.vision.backend import timm_eva, timm_vit
from fulcrum.science.vision.stack import Reach, TowerShape, VisionStack


class _TimmStack(VisionStack):
    """What `timm`'s VisionTransformer and Eva share: tokens, pooling and heads."""

    def __init__(self, visual: Any) -> None:
        trunk = visual.trunk
        self._visual = visual
        self._trunk = trunk
        self.n_blocks = len(trunk.blocks)
        pooling, pooled = _pooling(trunk)
        self.shape = TowerShape(
            n_blocks=self.n_blocks,
            d_model=trunk.embed_dim,
            grid=(trunk.patch_embed.grid_size[0], trunk.patch_embed.grid_size[1]),
            n_prefix_tokens=trunk.num_prefix_tokens,
            has_cls=trunk.cls_token is not None,
            pooling=pooling,
            pooled=pooled,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = next(self._trunk.blocks[0].parameters()).dtype
        return dtype

    def mlp_module(self, block: int) -> nn.Module:
        """`mlp` of the block."""
        module: nn.Module = self._trunk.blocks[block].mlp
        return module

    def head(self, x: Float[Tensor, "batch tokens d_model"]) -> Float[Tensor, "batch d_embed"]:
        """Trunk norm, pooling, `fc_norm` and classifier, then OpenCLIP's projection."""
        out: Tensor = self._visual.head(self._trunk.forward_head(self._trunk.norm(x)))
        return out

    def _cast(self, images: Tensor) -> Tensor:
        weight = next(self._trunk.patch_embed.parameters())
        return images.to(weight.device, weight.dtype)


class TimmVit(_TimmStack):
    """timm's `VisionTransformer` made of `Block` or `ResPostBlock`; of other blocks `resid_post` only."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        kinds = {type(block) for block in self._trunk.blocks}
        self._known = kinds <= {timm_vit.Block, timm_vit.ResPostBlock}

    @property
    def sites(self) -> tuple[Site, ...]:
        """By the kind of the blocks."""
        return super().sites if self._known else ("resid_post",)

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens d_model"]:
        """Patches, prefix tokens, positions, patch dropout (idle in eval mode) and `norm_pre`."""
        trunk = self._trunk
        x: Tensor = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(self._cast(images)))))
        return x

    def context(self) -> None:
        """Blocks share nothing."""
        return

    def run_block(self, block: int, x: Tensor, context: Any) -> Tensor:
        """The module itself."""
        out: Tensor = self._trunk.blocks[block](x)
        return out

    def attention(self, block: int, x: Tensor, context: Any) -> Tensor:
        """`ls1(attn(norm1(x)))`, or `norm1(attn(x))` of a post-norm block."""
        module = self._trunk.blocks[block]
        if isinstance(module, timm_vit.ResPostBlock):
            out: Tensor = module.drop_path1(module.norm1(module.attn(x)))
        else:
            out = module.drop_path1(module.ls1(module.attn(module.norm1(x))))
        return out

    def mlp_reads(self, block: int, x: Tensor) -> Tensor:
        """`norm2(x)`, or x itself in a post-norm block."""
        module = self._trunk.blocks[block]
        out: Tensor = x if isinstance(module, timm_vit.ResPostBlock) else module.norm2(x)
        return out

    def mlp_adds(self, block: int, out: Tensor) -> Tensor:
        """`ls2(out)`, or `norm2(out)` of a post-norm block."""
        module = self._trunk.blocks[block]
        post_norm = isinstance(module, timm_vit.ResPostBlock)
        added: Tensor = module.drop_path2(module.norm2(out) if post_norm else module.ls2(out))
        return added


class TimmEva(_TimmStack):
    """`timm.models.eva.Eva`: rotary positions are the context, computed anew on each side of the cut."""

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens d_model"]:
        """Patches, prefix tokens, absolute positions where there are some, and `norm_pre`."""
        trunk = self._trunk
        x: Tensor = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(self._cast(images)))[0])
        return x

    def context(self) -> Tensor | None:
        """Rotary embedding of the patch grid; one entry for each block when the tower mixes them by depth."""
        rope = self._trunk.rope
        if rope is None:
            return None
        fixed = not self._trunk.dynamic_img_size and hasattr(rope, "feat_shape")
        embedding: Tensor = rope.get_embed() if fixed else rope.get_embed(shape=self.shape.grid)
        return embedding

    def run_block(self, block: int, x: Tensor, context: Any) -> Tensor:
        """The module itself."""
        out: Tensor = self._trunk.blocks[block](x, rope=self._rope(block, context))
        return out

    def attention(self, block: int, x: Tensor, context: Any) -> Tensor:
        """`gamma_1 * attn(norm1(x))`, or `norm1(attn(x))` of a post-norm block."""
        module, rope = self._trunk.blocks[block], self._rope(block, context)
        if isinstance(module, timm_eva.EvaBlockPostNorm):
            out: Tensor = module.norm1(module.attn(x, rope=rope))
        else:
            out = module.attn(module.norm1(x), rope=rope)
            out = out if module.gamma_1 is None else module.gamma_1 * out
        return module.drop_path1(out)  # type: ignore[no-any-return]  # untyped upstream

    def mlp_reads(self, block: int, x: Tensor) -> Tensor:
        """`norm2(x)`, or x itself in a post-norm block."""
        module = self._trunk.blocks[block]
        out: Tensor = x if isinstance(module, timm_eva.EvaBlockPostNorm) else module.norm2(x)
        return out

    def mlp_adds(self, block: int, out: Tensor) -> Tensor:
        """The output times `gamma_2`, or `norm2(out)` of a post-norm block."""
        module = self._trunk.blocks[block]
        if isinstance(module, timm_eva.EvaBlockPostNorm):
            out = module.norm2(out)
        elif module.gamma_2 is not None:
            out = module.gamma_2 * out
        return module.drop_path2(out)  # type: ignore[no-any-return]  # untyped upstream

    def _rope(self, block: int, context: Tensor | None) -> Tensor | None:
        return context[block] if context is not None and self._trunk.rope_mixed else context


# Trunks whose forward pass is exactly the one that the stack takes apart; a subclass may run other layers.
_TRUNKS: dict[type, type[_TimmStack]] = {timm_vit.VisionTransformer: TimmVit, timm_eva.Eva: TimmEva}


def timm_stack(visual: Any) -> VisionStack:
    """The stack of a `TimmModel`; raises UnknownModel for trunks that are no plain vision transformer."""
    stack = _TRUNKS.get(type(visual.trunk))
    if stack is None:
        names = ", ".join(f"{t.__module__}.{t.__name__}" for t in _TRUNKS)
        raise UnknownModel(
            f"a timm trunk of type {type(visual.trunk).__name__} has no residual blocks that we split; "
            f"supported: {names}"
        )
    return stack(visual)


def _pooling(trunk: Any) -> tuple[str, Reach]:
    patches: Reach = "patches" if trunk.num_prefix_tokens else "all"
    if trunk.attn_pool is not None:
        # Eva has no such option, and its attention pool reads all tokens.
        return "map", "all" if getattr(trunk, "pool_include_prefix", True) else patches
    match trunk.global_pool:
        case "token":
            return "token", "cls"
        case "avg" | "max" | "avgmax" as kind:
            return kind, "all" if getattr(trunk, "pool_include_prefix", False) else patches
        case other:
            raise UnknownModel(f"a timm trunk with pooling {other!r} gives no single embedding")
