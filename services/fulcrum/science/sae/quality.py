"""How good an SAE is: reconstruction streamed in float64, and what the model makes of the reconstruction."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.variants import build_sae


@dataclass(frozen=True)
class Quality:
    """Reconstruction and sparsity over a sample of tokens."""

    fvu: float  # sum |x - x_hat|^2 / sum |x - mean(x)|^2, mean per dimension
    explained_variance: float  # 1 - fvu
    l0: float  # mean number of active latents per token
    dead_share: float  # latents that never fired in this sample
    cosine: float  # mean cosine of x and x_hat
    n_tokens: int

    def as_dict(self) -> dict[str, float]:
        """For `save_sae` and reports."""
        return {name: float(value) for name, value in asdict(self).items()}


@torch.no_grad()
def evaluate_sae(sae: Sae, activations: Iterable[Tensor], chunk: int = 4096) -> Quality:
    """Quality over all `activations`: chunks (n, d_in) of any size, read once.

    Sums are in float64, and the variance is accumulated around the first token, so that a large common mean
    (CLIP activations have one) does not cancel digits. Raises InvalidInput without tokens, ComputationFailed
    for activations that are not finite or all equal.
    """
    device = sae.W_dec.device
    squared_error = cosine = torch.zeros((), dtype=torch.float64, device=device)
    shift = total = square = None
    n_tokens = n_active = 0
    fired = torch.zeros(sae.config.d_sae, dtype=torch.bool, device=device)
    for piece in activations:
        for x in torch.split(piece.to(device, sae.W_dec.dtype), chunk):
            latents = sae.encode_sparse(x, chunk)
            wide = x.double()
            x_hat = sae.decode(latents.to_dense()).double()
            if shift is None or total is None or square is None:
                shift, total, square = wide[0].clone(), torch.zeros_like(wide[0]), torch.zeros_like(wide[0])
            shifted = wide - shift
            total += shifted.sum(0)
            square += shifted.square().sum(0)
            squared_error = squared_error + (wide - x_hat).square().sum()
            cosine = cosine + torch.cosine_similarity(wide, x_hat, dim=1).sum()
            n_active += latents.values.shape[0]
            fired[latents.latents] = True
            n_tokens += x.shape[0]
    if total is None or square is None:
        raise InvalidInput("quality needs at least one token of activations, got none")
    variance = float((square - total.square() / n_tokens).sum())
    if not np.isfinite(float(squared_error)) or not np.isfinite(variance):
        raise ComputationFailed(
            f"activations or reconstructions of these {n_tokens} tokens contain nan or inf"
        )
    if variance <= 0.0:
        raise ComputationFailed(f"all {n_tokens} tokens are equal: FVU is not defined")
    fvu = float(squared_error) / variance
    return Quality(
        fvu=fvu,
        explained_variance=1.0 - fvu,
        l0=n_active / n_tokens,
        dead_share=1.0 - float(fired.double().mean()),
        cosine=float(cosine) / n_tokens,
        n_tokens=n_tokens,
    )


@torch.no_grad()
def untrained_twin(sae: Sae, seed: int = 0) -> Sae:
    """An SAE of the same variant and shape with random weights: what a metric says about it says nothing.

    Decoder rows are random directions of the trained rows' norms, the encoder is their transpose at the
    trained encoder's norms; biases, thresholds and normalisation are the trained ones.
    """
    twin = build_sae(sae.config).to(sae.W_dec.device).requires_grad_(False)
    twin.load_state_dict(sae.state_dict())
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(sae.W_dec.shape, generator=generator).to(sae.W_dec)
    rows = rows / rows.norm(dim=1, keepdim=True)
    twin.W_dec.copy_(rows * sae.W_dec.norm(dim=1, keepdim=True))
    twin.W_enc.copy_(rows.T * sae.W_enc.norm(dim=0))
    return twin.eval()


@dataclass(frozen=True)
class Faithfulness:
    """What the model answers when x is replaced by x_hat."""

    ce_original: float
    ce_reconstructed: float
    ce_zero: float
    ce_recovered: float
    top1_agreement: float  # share of images whose prediction stays

    def as_dict(self) -> dict[str, float]:
        """For `save_sae` and reports."""
        return {name: float(value) for name, value in asdict(self).items()}


def faithfulness(
    original: NDArray[np.floating],
    reconstructed: NDArray[np.floating],
    zeroed: NDArray[np.floating],
    labels: NDArray[np.integer],
    logit_scale: float,
) -> Faithfulness:
    """`(CE_zero - CE_recon) / (CE_zero - CE_orig)` and agreement, from cosines (n_images, n_classes).

    The three arrays are cosine similarities of image and class embeddings with x untouched, replaced by
    x_hat, and replaced by zeros; `logit_scale` (about 100 in CLIP) multiplies them here, because cross
    entropies of bare cosines are all nearly log(n_classes). Raises InvalidInput for shapes that do not match,
    ComputationFailed where zeroing does not change the cross entropy.
    """
    arrays = {"original": original, "reconstructed": reconstructed, "zeroed": zeroed}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape != original.shape or array.shape[0] != labels.shape[0]:
            raise InvalidInput(
                f"{name} has shape {array.shape}, expected (n_images, n_classes), n_images={labels.shape[0]}"
            )
        if not np.isfinite(array).all():
            raise ComputationFailed(f"{name} logits contain nan or inf")
    if not logit_scale > 0:
        raise InvalidInput(f"logit_scale={logit_scale!r} must be positive")
    if labels.size == 0 or labels.min() < 0 or labels.max() >= original.shape[1]:
        raise InvalidInput(f"labels must be in 0 .. {original.shape[1] - 1}, for at least one image")
    ce = {name: _cross_entropy(array, labels, logit_scale) for name, array in arrays.items()}
    gap = ce["zeroed"] - ce["original"]
    if abs(gap) < 1e-12:
        raise ComputationFailed(
            "zeroing the activations leaves the cross entropy as it is: nothing to recover"
        )
    return Faithfulness(
        ce_original=ce["original"],
        ce_reconstructed=ce["reconstructed"],
        ce_zero=ce["zeroed"],
        ce_recovered=(ce["zeroed"] - ce["reconstructed"]) / gap,
        top1_agreement=float((original.argmax(1) == reconstructed.argmax(1)).mean()),
    )


def _cross_entropy(cosines: NDArray[np.floating], labels: NDArray[np.integer], logit_scale: float) -> float:
    logits = cosines.astype(np.float64) * logit_scale
    logits -= logits.max(1, keepdims=True)
    log_norm = np.log(np.exp(logits).sum(1))
    return float((log_norm - logits[np.arange(labels.shape[0]), labels]).mean())
