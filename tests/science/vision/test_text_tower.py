"""Text towers split at a hook point."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fulcrum.domain.errors import InvalidHookPoint, InvalidInput, UnknownModel
from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.stack import SITES
from fulcrum.science.vision.text_tower import text_stack
from fulcrum.science.vision.towers import split_text_tower, split_tower

from .small_models import TINY, shrunk

SMALL_VISION = {"layers": 1, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16}
SMALL_TEXT = {"layers": 3, "width": 32, "heads": 2, "vocab_size": 300, "context_length": 12}
# name -> tokens that reach the embedding from the last block, of the text 'begin a b end' padded to twelve.
TOWERS = {
    "ViT-S-32": [3],  # CLIP: causal, pooled at the largest id
    "ViT-B-32-quickgelu": [3],
    "ViT-H-14-CLIPA": [11],  # both ways, pooled at the last position
    "ViT-L-14-worldwide": [3],  # pooled at the end token, by its id
    "MobileCLIP-B": [3],  # TextTransformer, causal
    "ViT-B-32-SigLIP2-256": [11],  # TextTransformer with a biased projection
    "ViT-SO400M-16-SigLIP-i18n-256": [11],  # without projection
    "coca_ViT-B-32": [12],  # class token behind the others, padding masked
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request: pytest.FixtureRequest, load_random: Callable[..., LoadedModel]) -> tuple[str, LoadedModel]:
    config = shrunk(request.param, {}, SMALL_TEXT)
    config["vision_cfg"] = SMALL_VISION | {"output_tokens": "multimodal_cfg" in config}
    if config["text_cfg"].get("proj_type") == "none":
        config["embed_dim"] = SMALL_TEXT["width"]
    return request.param, load_random(config)


def tokens_of(loaded: LoadedModel) -> Tensor:
    """Two texts of two and five letters; the end token is the largest id and that of 'eos' pooling."""
    text = loaded.model if hasattr(loaded.model, "transformer") else loaded.model.text
    eos_pooled = getattr(text, "text_pool_type", getattr(text, "pool_type", "")) == "eos"
    end = getattr(text, "text_eos_id", getattr(text, "eos_id", 2)) if eos_pooled else 299
    tokens = torch.zeros(2, 12, dtype=torch.long)
    tokens[0, :4] = torch.tensor([298, 10, 11, end])
    tokens[1, :7] = torch.tensor([298, 12, 13, 14, 15, 16, end])
    return tokens


def block_width(loaded: LoadedModel) -> int:
    """Units of an MLP."""
    text = loaded.model if hasattr(loaded.model, "transformer") else loaded.model.text
    return int(text.transformer.resblocks[0].mlp.c_fc.out_features)


def test_suffix_of_prefix_is_encode_text_at_every_hook_point(tower: tuple[str, LoadedModel]) -> None:
    _, loaded = tower
    tokens = tokens_of(loaded)
    expected = loaded.model.encode_text(tokens, normalize=False)
    for block in range(3):
        for site in SITES:
            split = split_text_tower(loaded, HookPoint("text", block, site))
            state = split.prefix(tokens)
            assert state.x.shape[-1] == split.d_in == (block_width(loaded) if site == "mlp_in" else 32)
            torch.testing.assert_close(split.suffix(state, tokens), expected, rtol=1e-4, atol=1e-5)


def test_activations_are_those_that_hooks_on_the_model_see(tower: tuple[str, LoadedModel]) -> None:
    _, loaded = tower
    tokens = tokens_of(loaded)
    text = loaded.model if hasattr(loaded.model, "transformer") else loaded.model.text
    block = text.transformer.resblocks[1]
    parts = (
        ("resid_post", block),
        ("attn_out", block.ls_1),
        ("mlp_out", block.ls_2),
        ("mlp_in", block.mlp.c_fc),
    )
    for site, part in parts:
        seen: list[Tensor] = []
        handle = part.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out))
        loaded.model.encode_text(tokens)
        handle.remove()
        state = split_text_tower(loaded, HookPoint("text", 1, site)).prefix(tokens)
        torch.testing.assert_close(state.x, seen[0], rtol=1e-4, atol=1e-5)


def test_gradients_reach_exactly_the_tokens_that_reaches_output_names(tower: tuple[str, LoadedModel]) -> None:
    name, loaded = tower
    tokens = tokens_of(loaded)
    for block in range(3):
        for site in SITES:
            split = split_text_tower(loaded, HookPoint("text", block, site))
            state = split.prefix(tokens)
            x = state.x.clone().requires_grad_(True)
            out = split.suffix(state.with_x(x), tokens)
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
            (gradient,) = torch.autograd.grad((out * weights).sum(), x)
            reached = split.reaches_output(tokens)
            assert torch.equal(gradient.abs().sum(-1) > 0, reached), (name, block, site)
            if block == 2:
                assert reached[0].nonzero().flatten().tolist() == TOWERS[name]


def test_rows_of_activations_and_of_tokens_must_match(tower: tuple[str, LoadedModel]) -> None:
    _, loaded = tower
    tokens = tokens_of(loaded)
    split = split_text_tower(loaded, HookPoint("text", 0, "resid_post"))
    state = split.prefix(tokens)
    with pytest.raises(InvalidInput, match="4 rows of activations with 2 rows of tokens"):
        split.suffix(state.repeat(2), tokens)
    repeated = split.suffix(state.repeat(2), tokens.repeat_interleave(2, dim=0))
    expected = split.suffix(state, tokens).repeat_interleave(2, dim=0)
    torch.testing.assert_close(repeated, expected, rtol=1e-4, atol=1e-5)


def test_hook_points_of_the_other_tower_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(InvalidHookPoint, match="text tower"):
        split_tower(tiny, HookPoint("text", 0, "resid_post"))
    with pytest.raises(InvalidHookPoint, match="visual tower"):
        split_text_tower(tiny, HookPoint("visual", 0, "resid_post"))


def test_a_block_beyond_the_last_is_refused_with_the_number_of_blocks(tiny: LoadedModel) -> None:
    with pytest.raises(InvalidHookPoint, match="text tower has 3 blocks"):
        split_text_tower(tiny, HookPoint("text", 3, "attn_out"))


def test_text_towers_of_other_libraries_are_refused_with_what_is_supported() -> None:
    class Other(torch.nn.Module):
        text: Any = torch.nn.Linear(1, 1)

    with pytest.raises(UnknownModel, match="supported: the text transformers of OpenCLIP"):
        text_stack(Other())


def test_pooled_position_follows_each_text(load_random: Callable[..., LoadedModel]) -> None:
    loaded = load_random(TINY)
    tokens = loaded.tokenizer(["a", "a long text"])
    reached = split_text_tower(loaded, HookPoint("text", 2, "resid_post")).reaches_output(tokens)
    assert torch.equal(reached.nonzero()[:, 1], tokens.argmax(dim=-1))
    earlier = split_text_tower(loaded, HookPoint("text", 0, "resid_post")).reaches_output(tokens)
    assert torch.equal(earlier.sum(dim=1), tokens.argmax(dim=-1) + 1)
