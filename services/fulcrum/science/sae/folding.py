"""The same SAE with its activation normalisation moved into the weights."""

import torch

from fulcrum.science.sae.base import Sae


@torch.no_grad()
def fold_normalisation(sae: Sae) -> Sae:
    """Moves `norm_mean` and `norm_scale` into the weights, in place, and returns the SAE.

    With `N(x) = s (x - mu)`: `W_enc <- s W_enc`, `W_dec <- W_dec / s`, `b_dec <- b_dec / s + mu`. Latents and
    reconstructions stay as they were (to float tolerance), thresholds too; folding twice changes nothing.
    """
    sae.W_enc.mul_(sae.norm_scale)
    sae.W_dec.div_(sae.norm_scale)
    sae.b_dec.div_(sae.norm_scale).add_(sae.norm_mean)
    sae.norm_mean.zero_()
    sae.norm_scale.fill_(1.0)
    return sae
