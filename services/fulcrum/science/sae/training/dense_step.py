"""Gradients of ReLU, JumpReLU and Gated SAEs, through autograd."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.losses import gated_loss, jumprelu_loss, relu_loss
from fulcrum.science.sae.training.sparse_step import remove_radial
from fulcrum.science.sae.training.step import StepResult


class DenseStep:
    """Any number of latents may be active, so nothing is sparse enough to gain from."""

    def __init__(self, sae: Sae, config: TrainConfig) -> None:
        self._config = config
        self._weights = {
            name: value.detach().clone().requires_grad_() for name, value in sae.named_parameters()
        }

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters of the SAE under their own names."""
        return self._weights

    @property
    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def gradients(self, u: Float[Tensor, "n d_in"], dead: Bool[Tensor, " d_sae"], share: float) -> StepResult:
        """Sets `.grad`; the sparsity weight grows over `sparsity_warmup_share` of the run."""
        warmup = self._config.sparsity_warmup_share
        ramp = min(1.0, share / warmup) if warmup > 0 else 1.0
        for value in self._weights.values():
            value.grad = None
        with torch.enable_grad():
            loss, residual, z = self._loss(u, ramp)
            loss.backward()
        with torch.no_grad():
            decoder = self._weights["W_dec"]
            assert decoder.grad is not None
            remove_radial(decoder.grad, decoder)
            active = z > 0
            residual = residual.detach()
            penalty = loss.detach() - residual.square().sum() / u.shape[0]
            return StepResult(residual[None], active.any(0), active.sum(), penalty)

    @torch.no_grad()
    def after_update(self) -> None:
        """Unit decoder rows; thresholds not below zero, where they would have no effect and no gradient."""
        decoder = self._weights["W_dec"]
        decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True).clamp_(min=1e-8))
        if "threshold" in self._weights:
            self._weights["threshold"].clamp_(min=0.0)

    @torch.no_grad()
    def export(self, sae: Sae) -> None:
        """Copies the weights into the SAE."""
        for name, value in sae.named_parameters():
            value.copy_(self._weights[name])

    def _loss(self, u: Tensor, ramp: float) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        match config.variant:
            case "relu":
                return relu_loss(self._weights, u, config.l1_weight * ramp)
            case "gated":
                return gated_loss(self._weights, u, config.l1_weight * ramp)
            case "jumprelu":
                return jumprelu_loss(self._weights, u, config.l0_weight * ramp, config.bandwidth)
            case _:
                raise InvalidSaeConfig(f"a {config.variant} SAE is not trained through autograd")
