"""A small differentiable tower and SAEs with which steering, attribution and search are tested.

Three pre-norm transformer blocks over a 3 x 3 grid, weights drawn from a seed, float64. `images` are token
activations before the first block: no patch embedding stands between a test and what it wants to say.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.attribution.targets import ZeroShotHead
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.relu import ReluSae
from fulcrum.science.vision.split import HookState

D_MODEL = 12
D_EMBED = 6
N_BLOCKS = 3
GRID = (3, 3)


class Block(nn.Module):
    """Pre-norm attention (one head) and MLP."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

        def drawn(*shape: int) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return nn.Parameter(values / shape[0] ** 0.5)

        self.qkv = drawn(D_MODEL, 3 * D_MODEL)
        self.out = drawn(D_MODEL, D_MODEL)
        self.up = drawn(D_MODEL, 2 * D_MODEL)
        self.down = drawn(2 * D_MODEL, D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        q, k, v = (nn.functional.layer_norm(x, (D_MODEL,)) @ self.qkv).chunk(3, dim=-1)
        x = x + torch.softmax(q @ k.mT / D_MODEL**0.5, dim=-1) @ v @ self.out
        return x + nn.functional.gelu(nn.functional.layer_norm(x, (D_MODEL,)) @ self.up) @ self.down


class TinyTower(nn.Module):
    """`resid_post` hook after `block`; pooled from CLS or as the mean of the patches."""

    def __init__(
        self, block: int = 0, *, has_cls: bool = True, seed: int = 0, last_norm: bool = True
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.blocks = nn.ModuleList(Block(generator) for _ in range(N_BLOCKS))
        self.project = nn.Parameter(torch.randn(D_MODEL, D_EMBED, generator=generator, dtype=torch.float64))
        self.hook_point = HookPoint("visual", block, "resid_post")
        self.d_in = D_MODEL
        self.grid = GRID
        self.has_cls = has_cls
        self.n_tokens = GRID[0] * GRID[1] + int(has_cls)
        self.last_norm = last_norm
        self.n_suffix_rows = 0
        self.n_suffix_calls = 0

    @property
    def reaches_output(self) -> Literal["all", "cls", "patches"]:
        """After the last block of a CLS-pooled tower only CLS reaches the output."""
        return "cls" if self.has_cls and self.hook_point.block == N_BLOCKS - 1 else "all"

    def prefix(self, images: Tensor) -> HookState:
        """`images` (batch, n_tokens, d_model)."""
        x = images
        for block in self.blocks[: self.hook_point.block + 1]:
            x = block(x)
        return HookState(x)

    def suffix(self, state: HookState) -> Tensor:
        """Counts the rows it sees, so that tests can say what ran."""
        self.n_suffix_rows += state.x.shape[0]
        self.n_suffix_calls += 1
        x = state.x
        for block in self.blocks[self.hook_point.block + 1 :]:
            x = block(x)
        x = x[:, 0] if self.has_cls else x.mean(dim=1)
        if self.last_norm:
            # No eps: the output is exactly invariant to the scale of x (SCIENCE.md 3, identity).
            x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, unbiased=False)
        return x @ self.project


class TopKSae(Sae):
    """Not pointwise: a latent's value depends on the others."""

    pointwise = False

    def activate(self, pre_acts: Tensor) -> Tensor:
        """The four largest, relu."""
        kept = torch.topk(pre_acts, 4, dim=-1)
        return torch.zeros_like(pre_acts).scatter(-1, kept.indices, torch.relu(kept.values))


def tiny_sae(
    kind: type[Sae] = ReluSae,
    *,
    d_sae: int = 20,
    seed: int = 1,
    normalised: bool = True,
    bias: float = -0.3,
    dtype: torch.dtype = torch.float64,
) -> Sae:
    """Random weights; `normalised` gives it a scale of 1.7 and a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    sae = kind(SaeConfig("relu", D_MODEL, d_sae)).to(torch.float64)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(d_sae, D_MODEL, generator=generator, dtype=torch.float64) / D_MODEL**0.5)
        noise = torch.randn(D_MODEL, d_sae, generator=generator, dtype=torch.float64)
        sae.W_enc.copy_(sae.W_dec.T + 0.1 * noise)
        sae.b_enc.fill_(bias)
        sae.b_dec.copy_(0.2 * torch.randn(D_MODEL, generator=generator, dtype=torch.float64))
        if normalised:
            sae.norm_mean.copy_(0.3 * torch.randn(D_MODEL, generator=generator, dtype=torch.float64))
            sae.norm_scale.fill_(1.7)
    return sae.to(dtype)


def tiny_images(n: int, tower: TinyTower, seed: int = 2) -> Tensor:
    """Token activations (n, n_tokens, d_model)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, tower.n_tokens, D_MODEL, generator=generator, dtype=torch.float64)


def tiny_head(n_classes: int = 3, seed: int = 0, logit_scale: float = 20.0) -> ZeroShotHead:
    """Classes a, b, c ... with random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n_classes, D_EMBED, generator=generator, dtype=torch.float64)
    return ZeroShotHead(tuple("abcdefgh"[:n_classes]), embeddings, logit_scale)
