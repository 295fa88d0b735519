"""`suffix(prefix(x)) == encode_image(x)` at every block of architectures from OpenCLIP's own list."""

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from fulcrum.domain.hook_points import HookPoint, Site
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.stack import SITES
from fulcrum.science.vision.towers import list_hook_points, split_tower

from .small_models import SMALL_TEXT, shrunk

HUGE = {"width": 160, "head_width": 40, "layers": 4}
FEWER = {"blocks": 4}  # of a timm trunk, whose size no configuration can change
# name -> (changes to the vision tower, every site of every block or one site of each in turn).
# An empty change is the real tower; the text tower is always a small one.
ARCHITECTURES: dict[str, tuple[dict[str, Any], bool]] = {
    "ViT-B-32": ({}, True),
    "ViT-B-32-quickgelu": ({}, False),
    "ViT-S-16": ({}, False),
    "ViT-S-32-alt": ({}, True),
    "ViT-M-32": ({}, False),
    "ViT-B-16": ({"layers": 3}, True),
    "ViT-H-14-CLIPA": ({**HUGE, "image_size": 112}, True),
    "ViT-bigG-14": ({**HUGE, "image_size": 112}, True),
    "ViT-g-14": ({**HUGE, "image_size": 112}, True),
    "coca_ViT-B-32": ({}, False),
    "coca_base": ({**HUGE, "image_size": 144}, True),
    "ViT-B-32-SigLIP2-256": ({}, False),
    "ViT-B-16-SigLIP": (FEWER, True),
    "EVA02-B-16": (FEWER, False),
    "PE-Core-T-16-384": ({}, False),
    "MobileCLIP-B": (FEWER, False),
    "vit_medium_patch16_gap_256": ({}, False),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(
    request: pytest.FixtureRequest, load_random: Callable[..., LoadedModel]
) -> tuple[str, LoadedModel]:
    """One model at a time, by name."""
    vision = dict(ARCHITECTURES[request.param][0])
    n_blocks = vision.pop("blocks", None)
    loaded = load_random(shrunk(request.param, vision, SMALL_TEXT))
    if n_blocks:
        loaded.model.visual.trunk.blocks = loaded.model.visual.trunk.blocks[:n_blocks]
    return request.param, loaded


def test_suffix_of_prefix_is_encode_image_at_every_block(architecture: tuple[str, LoadedModel]) -> None:
    name, loaded = architecture
    every_site = ARCHITECTURES[name][1]
    images = _images(loaded, 1)
    n_blocks = _n_blocks(loaded)
    changes = ARCHITECTURES[name][0]
    assert n_blocks == changes.get("blocks", changes.get("layers", _n_configured(name)))
    with torch.no_grad():
        expected = loaded.model.encode_image(images, normalize=False)
        for block in range(n_blocks):
            offered = sites_of(loaded)
            for site in offered if every_site else (offered[block % len(offered)],):
                tower = split_tower(loaded, HookPoint("visual", block, site))
                state = tower.prefix(images)
                assert state.x.shape == (1, loaded.info.n_tokens, tower.d_in)
                assert site == "mlp_in" or tower.d_in == loaded.info.d_model
                assert (state.carry is None) == (site == "resid_post")
                torch.testing.assert_close(tower.suffix(state), expected, rtol=1e-4, atol=1e-5)


def test_activations_are_those_that_hooks_on_the_model_see(architecture: tuple[str, LoadedModel]) -> None:
    _, loaded = architecture
    block = _n_blocks(loaded) // 2
    images = _images(loaded, 1)
    seen: dict[str, Tensor] = {}
    module, attention, mlp, mlp_in = _branches(loaded, block)
    handles = [
        part.register_forward_hook(lambda _m, _a, out, site=site: seen.__setitem__(site, out))
        for part, site in (
            (module, "resid_post"),
            (attention, "attn_out"),
            (mlp, "mlp_out"),
            (mlp_in or module, "mlp_in"),
        )
    ]
    with torch.no_grad():
        loaded.model.encode_image(images, normalize=False)
        for handle in handles:
            handle.remove()
        assert (mlp_in is not None) == ("mlp_in" in sites_of(loaded))
        for site in sites_of(loaded):
            x = split_tower(loaded, HookPoint("visual", block, site)).prefix(images).x
            torch.testing.assert_close(x, seen[site], rtol=1e-4, atol=1e-5)


def test_gradients_reach_exactly_the_tokens_that_reaches_output_names(
    architecture: tuple[str, LoadedModel],
) -> None:
    name, loaded = architecture
    images = _images(loaded, 1)
    last = _n_blocks(loaded) - 1
    points = [HookPoint("visual", last, site) for site in sites_of(loaded)] + [
        HookPoint("visual", last - 1, "resid_post")
    ]
    for point in points:
        tower = split_tower(loaded, point)
        with torch.no_grad():
            state = tower.prefix(images)
        x = state.x.clone().requires_grad_(True)
        out = tower.suffix(state.with_x(x))
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad((out * weights).sum(), x)
        reached = gradient[0].abs().sum(-1) > 0
        prefix = torch.arange(tower.n_tokens) < tower.n_tokens - tower.grid[0] * tower.grid[1]
        expected = {
            "all": torch.ones(tower.n_tokens, dtype=torch.bool),
            "cls": torch.arange(tower.n_tokens) == 0,
            "patches": ~prefix,
        }[tower.reaches_output]
        assert torch.equal(reached, expected), (
            name,
            str(point),
            tower.reaches_output,
            reached.nonzero().flatten(),
        )


def test_model_info_lists_every_hook_point_of_both_towers(architecture: tuple[str, LoadedModel]) -> None:
    name, loaded = architecture
    points = list_hook_points(loaded)
    if "blocks" not in ARCHITECTURES[name][0]:  # shortened after loading
        assert loaded.info.hook_points == tuple(str(p) for p in points)
        assert loaded.info.n_blocks == _n_blocks(loaded)
    assert sum(p.tower == "visual" for p in points) == len(sites_of(loaded)) * _n_blocks(loaded)
    assert sum(p.tower == "text" for p in points) == 4 * SMALL_TEXT["layers"]


def sites_of(loaded: LoadedModel) -> tuple[Site, ...]:
    """Gated MLPs have no units that could be read before the nonlinearity."""
    mlp = _branches(loaded, 0)[3]
    return SITES if mlp is not None else ("resid_post", "mlp_out", "attn_out")


def _n_configured(name: str) -> int:
    """timm's configurations do not say it: all of these have 12."""
    return int(open_clip.get_model_config(name)["vision_cfg"].get("layers", 12))


def _n_blocks(loaded: LoadedModel) -> int:
    visual = loaded.model.visual
    return len(visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks)


def _images(loaded: LoadedModel, n: int) -> Tensor:
    height, width = loaded.preprocess.image_size
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def _branches(loaded: LoadedModel, block: int) -> tuple[Any, Any, Any, Any]:
    """The block, the modules whose outputs are added to the residual stream, and the first layer of a plain MLP."""
    visual = loaded.model.visual
    if hasattr(visual, "trunk"):
        module = visual.trunk.blocks[block]
        return module, module.drop_path1, module.drop_path2, getattr(module.mlp, "fc1", None)
    module = visual.transformer.resblocks[block]
    return module, module.ls_1, module.ls_2, module.mlp.c_fc
