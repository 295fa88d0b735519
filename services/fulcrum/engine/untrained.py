"""Untrained SAEs, asked for by name: they make the whole workflow run where no trained one is at hand.

Their numbers are computed like all others and mean nothing; every command that uses one says so.
"""

import torch

from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.hook_points import HookPoint
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.variants import VARIANTS, build_sae
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.towers import split_tower

UNTRAINED = "untrained:"


def untrained_sae(text: str, loaded: LoadedModel, seed: int = 0) -> Sae:
    """`untrained:<variant>:<d_sae>:<k>[@hook point]`, at the middle block's resid_post where none is named.

    Unit decoder rows in random directions, the encoder their transpose. Raises InvalidSettings, InvalidHookPoint.
    """
    shape, _, hook = text.removeprefix(UNTRAINED).partition("@")
    parts = shape.split(":")
    if len(parts) != 3 or parts[0] not in VARIANTS or not all(_is_number(part) for part in parts[1:]):
        raise InvalidSettings(
            f"SAE {text!r}: expected 'untrained:<variant>:<d_sae>:<k>[@hook point]' with a variant of "
            f"{', '.join(VARIANTS)}, for example 'untrained:topk:4096:32@visual.blocks.6.resid_post'"
        )
    hook_point = HookPoint.parse(hook or f"visual.blocks.{loaded.info.n_blocks // 2}.resid_post")
    variant, d_sae, k = parts[0], int(parts[1]), int(parts[2])
    d_in = split_tower(loaded, hook_point).d_in
    options: dict[str, object] = {"k": k} if variant in ("topk", "batch_topk", "matryoshka") else {}
    if variant == "matryoshka":
        options["prefixes"] = [d_sae]
    config = SaeConfig(
        variant,
        d_in,
        d_sae,
        hook_point=str(hook_point),
        model_name=loaded.info.ref.model_name,
        model_sha256=loaded.info.weights_sha256,
        preprocess_sha256=loaded.info.preprocess_sha256,
        options=options,
    )
    sae = build_sae(config).requires_grad_(False)
    rows = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
    sae.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True))
    sae.W_enc.copy_(sae.W_dec.T)
    return sae.eval()


def _is_number(text: str) -> bool:
    """One that `int` takes: `isdigit` is true of a superscript two, and a longer one than this is no size."""
    return text.isdecimal() and len(text) <= 9
