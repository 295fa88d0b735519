"""Every SAE variant on an OpenCLIP tower: a gradient that stops anywhere on the way would be a black map."""

import open_clip
import pytest
import torch

from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.concepts.heatmaps import gradient_x_input, occlusion
from fulcrum.science.sae.base import SaeConfig
from fulcrum.science.sae.variants import VARIANTS, build_sae
from fulcrum.science.vision.stack import VisionSplit
from fulcrum.science.vision.towers import vision_stack

OPTIONS = {
    "topk": {"k": 6},
    "batch_topk": {"k": 6},
    "matryoshka": {"k": 6, "prefixes": [16, 32]},
}


@pytest.fixture(scope="module")
def tower() -> VisionSplit:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    )
    model.double().eval().requires_grad_(False)
    return VisionSplit(vision_stack(model), HookPoint("visual", 0, "resid_post"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_of_an_openclip_tower_reach_the_latents_of_every_variant(tower, variant):
    generator = torch.Generator().manual_seed(1)
    sae = build_sae(SaeConfig(variant, d_in=32, d_sae=32, options=OPTIONS.get(variant, {}))).double()
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(32, 32, generator=generator) / 6)
    image = torch.randn(1, 3, 32, 32, generator=generator, dtype=torch.float64)

    @torch.no_grad()
    def z_of(picture: torch.Tensor) -> torch.Tensor:
        return sae.encode(tower.prefix(picture).x)[0].amax(dim=0)

    latent = int(z_of(image).argmax())
    pixel_map = gradient_x_input(tower, sae, image, latent)[0]
    # Along t -> t * image the derivative at t = 1 is the sum of image * gradient.
    step = 1e-6
    slope = (z_of(image * (1 + step)) - z_of(image * (1 - step)))[latent] / (2 * step)
    assert pixel_map.abs().max() > 0
    assert float(pixel_map.sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)

    drops = occlusion(tower, sae, image, latent)[0]
    painted = image.clone()
    painted[:, :, 8:16, 24:32] = 0
    assert float(drops[1, 3]) == pytest.approx(float((z_of(image) - z_of(painted))[latent]), abs=1e-12)
