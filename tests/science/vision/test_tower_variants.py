"""Every option of OpenCLIP's and timm's vision transformers, on towers of a few hundred parameters."""

from typing import Any

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, Transformer, VisionTransformer
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidHookPoint, UnknownModel
from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.vision.openclip_tower import OpenClipVision
from fulcrum.science.vision.split import HookState
from fulcrum.science.vision.stack import SITES, VisionSplit, VisionStack
from fulcrum.science.vision.timm_tower import timm_stack

from .small_models import randomise

N_BLOCKS = 3
OPEN_CLIP: dict[
    str, tuple[dict[str, Any], str, str]
] = {  # options, pooling, tokens pooled after the last block
    "plain": ({}, "tok", "cls"),
    "quick gelu": ({"act_layer": QuickGELU}, "tok", "cls"),
    "no ln_pre": ({"no_ln_pre": True}, "tok", "cls"),
    "average pooling": ({"pool_type": "avg"}, "avg", "patches"),
    "norm after pooling": ({"pool_type": "avg", "final_ln_after_pool": True}, "avg", "patches"),
    "norm after CLS": ({"final_ln_after_pool": True}, "tok", "cls"),
    "layer scale": ({"ls_init_value": 0.3}, "tok", "cls"),
    "fixed positions": ({"pos_embed_type": "sin_cos_2d"}, "tok", "cls"),
    "patch dropout": ({"patch_dropout": 0.5}, "tok", "cls"),
    "output tokens": ({"output_tokens": True}, "tok", "cls"),
    "attentional pool": (
        {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4},
        "attentional",
        "all",
    ),
    "attentional pool, mean": (
        {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4, "pool_type": "avg"},
        "attentional",
        "all",
    ),
    "two attentional pools, parallel": (
        {"attentional_pool": "parallel", "attn_pooler_heads": 4, "output_dim": 16},
        "attentional",
        "all",
    ),
    "two attentional pools, cascade": (
        {"attentional_pool": "cascade", "attn_pooler_heads": 4, "output_dim": 16},
        "attentional",
        "all",
    ),
    "qk norm": ({"qk_norm": True}, "tok", "cls"),
    "scaled heads": ({"scale_heads": True}, "tok", "cls"),
    "inner, outer and MLP norms": (
        {"scale_attn_inner": True, "scale_attn": True, "scale_fc": True},
        "tok",
        "cls",
    ),
    "custom block, layer scale": ({"block_type": "custom", "ls_init_value": 0.2}, "tok", "cls"),
}
TIMM_VIT: dict[str, tuple[dict[str, Any], str, str]] = {
    "class token": ({"global_pool": "token"}, "token", "cls"),
    "average": ({"global_pool": "avg"}, "avg", "patches"),
    "average without class token": ({"global_pool": "avg", "class_token": False}, "avg", "all"),
    "maximum": ({"global_pool": "max"}, "max", "patches"),
    "average with prefix": ({"global_pool": "avg", "pool_include_prefix": True}, "avg", "all"),
    "registers": ({"global_pool": "token", "reg_tokens": 2}, "token", "cls"),
    "registers, average": ({"global_pool": "avg", "reg_tokens": 2, "no_embed_class": True}, "avg", "patches"),
    "attention pool": ({"global_pool": "map", "class_token": False}, "map", "all"),
    "attention pool beside a class token": ({"global_pool": "map"}, "map", "patches"),
    "norm before, layer scale": (
        {"global_pool": "token", "pre_norm": True, "init_values": 0.3},
        "token",
        "cls",
    ),
    "norms of attention and MLP": (
        {"global_pool": "token", "qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
        "token",
        "cls",
    ),
    "norm after each branch": (
        {"global_pool": "token", "block_fn": ResPostBlock, "init_values": 0.4},
        "token",
        "cls",
    ),
    "any image size": ({"global_pool": "token", "dynamic_img_size": True}, "token", "cls"),
    "no positions": ({"global_pool": "token", "pos_embed": "none"}, "token", "cls"),
    "drop path": ({"global_pool": "token", "drop_path_rate": 0.2}, "token", "cls"),
}
TIMM_EVA: dict[str, tuple[dict[str, Any], str, str]] = {
    "absolute positions": ({"global_pool": "token"}, "token", "cls"),
    "rotary": ({"global_pool": "token", "use_rot_pos_emb": True}, "token", "cls"),
    "rotary only": (
        {"global_pool": "token", "use_rot_pos_emb": True, "use_abs_pos_emb": False},
        "token",
        "cls",
    ),
    "rotary by depth": (
        {"global_pool": "token", "use_rot_pos_emb": True, "rope_type": "mixed"},
        "token",
        "cls",
    ),
    "rotary, any image size": (
        {"global_pool": "token", "use_rot_pos_emb": True, "dynamic_img_size": True},
        "token",
        "cls",
    ),
    "gated MLP, layer scale": (
        {"global_pool": "token", "swiglu_mlp": True, "init_values": 0.3},
        "token",
        "cls",
    ),
    "gated MLP with norm": ({"global_pool": "token", "swiglu_mlp": True, "scale_mlp": True}, "token", "cls"),
    "average": ({"global_pool": "avg"}, "avg", "patches"),
    "attention pool": ({"global_pool": "map"}, "map", "all"),
    "norm after each branch": ({"global_pool": "token", "use_post_norm": True}, "token", "cls"),
    "registers": ({"global_pool": "avg", "num_reg_tokens": 2}, "avg", "patches"),
}
CASES = [
    *(pytest.param("open_clip", *case, id=f"open_clip: {name}") for name, case in OPEN_CLIP.items()),
    *(pytest.param("timm_vit", *case, id=f"timm: {name}") for name, case in TIMM_VIT.items()),
    *(pytest.param("timm_eva", *case, id=f"eva: {name}") for name, case in TIMM_EVA.items()),
]


def build(family: str, options: dict[str, Any]) -> tuple[nn.Module, VisionStack]:
    """A tower on images of 24 pixels and nine patches, no parameter of which is neutral."""
    torch.manual_seed(0)
    module: nn.Module
    if family == "open_clip":
        size = {"width": 16, "layers": N_BLOCKS, "heads": 2, "mlp_ratio": 2.0, "output_dim": 12}
        module = VisionTransformer(24, 8, **{**size, **options})
    else:
        kind = TimmVisionTransformer if family == "timm_vit" else Eva
        size = {"img_size": 24, "patch_size": 8, "embed_dim": 16, "num_heads": 2, "depth": N_BLOCKS}
        trunk = kind(num_classes=12, mlp_ratio=2.0, **size, **options)
        module = _wrap(trunk)
    module = module.eval().requires_grad_(False)
    randomise(module)
    return module, OpenClipVision(module) if family == "open_clip" else timm_stack(module)


def _wrap(trunk: nn.Module) -> TimmModel:
    wrapper = TimmModel.__new__(TimmModel)
    nn.Module.__init__(wrapper)
    wrapper.trunk, wrapper.head = trunk, nn.Sequential(nn.Linear(12, 12))
    return wrapper


def run(module: nn.Module, images: Tensor) -> Tensor:
    """The tower's own forward pass."""
    out = module(images)
    out = out[0] if isinstance(out, tuple) else out
    return out[:, 0] if out.ndim == 3 else out  # CoCa's second pool has one query


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("family", "options", "pooling", "pooled"), CASES)
class TestEveryVariant:
    def test_suffix_of_prefix_is_the_tower_at_every_hook_point(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        module, stack = build(family, options)
        assert stack.shape.pooling == pooling
        expected = run(module, images())
        for block in range(N_BLOCKS):
            for site in stack.sites:
                tower = VisionSplit(stack, HookPoint("visual", block, site))
                state = tower.prefix(images())
                assert state.x.shape == (2, tower.n_tokens, tower.d_in)
                torch.testing.assert_close(tower.suffix(state), expected, rtol=1e-4, atol=1e-5)

    def test_prefix_runs_no_later_part_and_suffix_no_earlier_one(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        module, stack = build(family, options)
        blocks = list(_blocks(module))
        ran: list[str] = []
        for number, block in enumerate(blocks):
            for branch, part in zip(("attention", "mlp"), (block.attn, block.mlp), strict=True):
                part.register_forward_hook(
                    lambda _m, _a, _o, number=number, branch=branch: ran.append(f"{number} {branch}")
                )
        _first(module).register_forward_hook(lambda _m, _a, _o: ran.append("embedding"))
        everything = [
            "embedding",
            *(f"{b} {branch}" for b in range(N_BLOCKS) for branch in ("attention", "mlp")),
        ]
        for point in (HookPoint("visual", 1, site) for site in stack.sites):
            # 'attn_out' stops between the two branches of block 1, the others after both; the MLP that 'mlp_in' cuts
            # in two is called in parts on either side, and never as a whole.
            n_before = 4 if point.site in ("attn_out", "mlp_in") else 5
            n_cut = int(point.site == "mlp_in")
            tower = VisionSplit(stack, point)
            ran.clear()
            state = tower.prefix(images())
            assert ran == everything[:n_before]
            ran.clear()
            tower.suffix(state)
            assert ran == everything[n_before + n_cut :]

    def test_tokens_that_nobody_reads_are_not_computed(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        module, stack = build(family, options)
        read: list[int] = []
        mlp = list(_blocks(module))[-1].mlp
        mlp.register_forward_pre_hook(lambda _m, arguments: read.append(arguments[0].shape[1]))
        embeddings = stack.encode(images())
        torch.testing.assert_close(embeddings, run(module, images()), rtol=1e-4, atol=1e-5)
        n_tokens = stack.shape.n_tokens
        spares = family == "open_clip" and pooled == "cls" and not _own_attention(options)
        assert read == [1 if spares else n_tokens, n_tokens]

    def test_units_of_an_mlp_are_offered_where_it_is_a_plain_one(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        _, stack = build(family, options)
        assert ("mlp_in" in stack.sites) == (not options.get("swiglu_mlp"))
        assert set(stack.sites) >= {"resid_post", "mlp_out", "attn_out"}

    def test_gradients_reach_exactly_the_tokens_that_reaches_output_names(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        _, stack = build(family, options)
        for block in range(N_BLOCKS):
            for site in stack.sites:
                tower = VisionSplit(stack, HookPoint("visual", block, site))
                assert tower.reaches_output == (pooled if block == N_BLOCKS - 1 else "all")
                reached = _reached(tower, tower.prefix(images(8)))
                n_prefix = tower.n_tokens - 9
                expected = {
                    "all": [True] * tower.n_tokens,
                    "cls": [True] + [False] * (tower.n_tokens - 1),
                    "patches": [False] * n_prefix + [True] * 9,
                }[tower.reaches_output]
                assert reached.tolist() == expected

    def test_a_state_is_not_modified_and_can_be_used_again(
        self, family: str, options: dict[str, Any], pooling: str, pooled: str
    ) -> None:
        _, stack = build(family, options)
        for site in stack.sites:
            tower = VisionSplit(stack, HookPoint("visual", 0, site))
            state = tower.prefix(images())
            x, carry = state.x.clone(), None if state.carry is None else state.carry.clone()
            first = tower.suffix(state)
            assert torch.equal(state.x, x)
            assert carry is None or (state.carry is not None and torch.equal(state.carry, carry))
            assert torch.equal(tower.suffix(state), first)


def test_sequence_first_blocks_give_what_batch_first_blocks_give() -> None:
    module, stack = build("open_clip", {"ls_init_value": 0.3})
    turned = (
        Transformer(16, N_BLOCKS, 2, mlp_ratio=2.0, ls_init_value=0.3, batch_first=False)
        .eval()
        .requires_grad_(False)
    )
    turned.load_state_dict(module.transformer.state_dict())
    expected = module(images())
    module.transformer = turned
    torch.testing.assert_close(module(images()), expected)
    stack = OpenClipVision(module)
    for site in stack.sites:
        tower = VisionSplit(stack, HookPoint("visual", 1, site))
        state = tower.prefix(images())
        assert state.x.shape == (2, 10, 32 if site == "mlp_in" else 16)
        torch.testing.assert_close(tower.suffix(state), expected)


def test_edited_activations_go_where_the_model_would_take_them() -> None:
    """A hook that replaces the module's output is the slow twin of a suffix on edited activations."""
    module, stack = build("open_clip", {"ls_init_value": 0.3})
    parts = (("resid_post", ""), ("attn_out", "ls_1"), ("mlp_out", "ls_2"), ("mlp_in", "mlp.c_fc"))
    for site, part in parts:
        block = module.transformer.resblocks[1]
        target = block.get_submodule(part) if part else block
        push = torch.randn(32 if site == "mlp_in" else 16, generator=torch.Generator().manual_seed(3))
        handle = target.register_forward_hook(lambda _m, _a, out, push=push: out + push)
        expected = module(images())
        handle.remove()
        tower = VisionSplit(stack, HookPoint("visual", 1, site))
        state = tower.prefix(images())
        torch.testing.assert_close(tower.suffix(state.with_x(state.x + push)), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected, module(images()))


def test_rows_of_a_state_are_independent_images() -> None:
    _, stack = build("timm_vit", {"global_pool": "token"})
    tower = VisionSplit(stack, HookPoint("visual", 1, "mlp_out"))
    state = tower.prefix(images(3))
    embeds = tower.suffix(state)
    torch.testing.assert_close(tower.suffix(state.rows(torch.tensor([2, 0]))), embeds[[2, 0]])
    torch.testing.assert_close(tower.suffix(state.repeat(2)), embeds.repeat_interleave(2, dim=0))


def test_low_precision_towers_take_float32_activations_of_an_sae_and_stay_in_their_dtype() -> None:
    module, _ = build("open_clip", {"ls_init_value": 0.3})
    expected = module(images())
    low = module.to(torch.bfloat16)
    for site in SITES:
        tower = VisionSplit(OpenClipVision(low), HookPoint("visual", 1, site))
        state = tower.prefix(images())
        assert state.x.dtype == torch.bfloat16
        out = tower.suffix(state)
        assert out.dtype == torch.bfloat16
        assert torch.equal(tower.suffix(state.with_x(state.x.float())), out)
        assert torch.nn.functional.cosine_similarity(out.float(), expected).min() > 0.99


def test_gradient_agrees_with_central_differences_in_float64() -> None:
    module, _ = build("open_clip", {})
    tower = VisionSplit(OpenClipVision(module.double()), HookPoint("visual", 1, "resid_post"))
    state = tower.prefix(images(1).double())
    assert torch.autograd.gradcheck(
        lambda x: tower.suffix(state.with_x(x)), (state.x.clone().requires_grad_(True),)
    )


def test_a_block_beyond_the_last_is_refused_with_the_number_of_blocks() -> None:
    _, stack = build("open_clip", {})
    with pytest.raises(InvalidHookPoint, match="has 3 blocks, 0 to 2"):
        VisionSplit(stack, HookPoint("visual", 3, "resid_post"))


def test_a_state_without_its_residual_stream_is_refused() -> None:
    _, stack = build("open_clip", {})
    tower = VisionSplit(stack, HookPoint("visual", 1, "mlp_out"))
    with pytest.raises(InvalidHookPoint, match="residual stream"):
        tower.suffix(HookState(tower.prefix(images()).x))


def test_blocks_whose_branches_run_in_parallel_offer_resid_post_only() -> None:
    module, stack = build("timm_vit", {"global_pool": "token", "block_fn": ParallelScalingBlock})
    tower = VisionSplit(stack, HookPoint("visual", 1, "resid_post"))
    torch.testing.assert_close(tower.suffix(tower.prefix(images())), run(module, images()))
    with pytest.raises(InvalidHookPoint, match="resid_post"):
        VisionSplit(stack, HookPoint("visual", 1, "mlp_out"))


@pytest.mark.parametrize("name", ["test_vit4", "test_convnext"])
def test_trunks_that_are_no_plain_vision_transformer_are_refused(name: str) -> None:
    trunk = timm.create_model(name, num_classes=12)
    if name == "test_vit4":  # a subclass may run other layers in its forward pass
        trunk.__class__ = type("Other", (TimmVisionTransformer,), {})
    with pytest.raises(UnknownModel, match=r"supported: .*VisionTransformer.*Eva"):
        timm_stack(_wrap(trunk))


def test_a_tower_that_returns_all_tokens_is_refused() -> None:
    module = VisionTransformer(24, 8, width=16, layers=1, heads=2, mlp_ratio=2.0, pool_type="none")
    with pytest.raises(UnknownModel, match="none"):
        OpenClipVision(module)


def _reached(tower: VisionSplit, state: HookState) -> Tensor:
    """Over eight images and random weights of the output, so that 'max' pooling has met every patch."""
    x = state.x.clone().requires_grad_(True)
    out = tower.suffix(state.with_x(x))
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((out * weights).sum(), x)
    return gradient.abs().sum((0, 2)) > 0


def _blocks(module: Any) -> Any:
    return module.trunk.blocks if hasattr(module, "trunk") else module.transformer.resblocks


def _first(module: Any) -> Any:
    return module.trunk.patch_embed if hasattr(module, "trunk") else module.conv1


def _own_attention(options: dict[str, Any]) -> bool:
    """OpenCLIP's custom blocks, whose attention takes no queries of its own."""
    return bool(
        {"qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "block_type"} & set(options)
    )
