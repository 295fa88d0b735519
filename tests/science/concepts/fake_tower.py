"""A tower small enough to be differentiated by finite differences."""

import torch
from torch import Tensor

from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.vision.split import HookState


class FakeTower:
    """Patches of a 12 x 12 image, a CLS token, and one round of mixing; float64."""

    hook_point = HookPoint("visual", 0, "resid_post")
    d_in, n_tokens, grid, has_cls = 6, 10, (3, 3), True
    reaches_output = "all"

    def __init__(self, mixing: float = 1.0) -> None:
        g = torch.Generator().manual_seed(0)
        self.patch = torch.randn(6, 3, 4, 4, generator=g, dtype=torch.float64) / 4
        self.cls = torch.randn(1, 1, 6, generator=g, dtype=torch.float64)
        self.mix = mixing * torch.randn(6, 6, generator=g, dtype=torch.float64) / 3
        self.largest_batch = 0

    def prefix(self, images: Tensor) -> HookState:
        self.largest_batch = max(self.largest_batch, len(images))
        tokens = torch.nn.functional.conv2d(images, self.patch, stride=4).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(images), -1, -1), tokens], dim=1)
        return HookState(tokens + torch.tanh(tokens.mean(dim=1, keepdim=True) @ self.mix))

    def suffix(self, state: HookState) -> Tensor:
        return state.x.mean(dim=1)
