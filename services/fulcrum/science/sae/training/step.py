"""What the trainer needs from a way of computing gradients."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulcrum.science.sae.base import Sae


@dataclass(frozen=True)
class StepResult:
    """What a step saw, for metrics and dead-latent counts."""

    residuals: Float[
        Tensor, "n_prefixes n d_in"
    ]  # x_hat - u of each prefix, the whole last; until the next step
    fired: Bool[Tensor, " d_sae"]
    n_active: Tensor  # ()
    penalty: Tensor | None = None  # (), what the loss has beside the squared residuals, AuxK left out

    @property
    def residual(self) -> Float[Tensor, "n d_in"]:
        """`x_hat - u` of the whole dictionary."""
        return self.residuals[-1]

    @property
    def loss(self) -> Tensor:
        """() float64, mean over tokens. Without AuxK, which jumps whenever a latent dies or wakes."""
        squares = self.residuals.square().sum(dtype=torch.float64) / self.residuals.shape[1]
        return squares if self.penalty is None else squares + self.penalty


@runtime_checkable
class Step(Protocol):
    """Holds the weights in the layout that its gradients are fastest in."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What the optimiser updates, by name."""
        ...

    @property
    def state(self) -> dict[str, Tensor]:
        """What else must be in a checkpoint, by name; updated in place."""
        ...

    def gradients(self, u: Float[Tensor, "n d_in"], dead: Bool[Tensor, " d_sae"], share: float) -> StepResult:
        """Sets `.grad` of every parameter for the batch `u = N(x)`.

        `dead` says which latents have not fired for long, `share` in 0 .. 1 how far the run has come.
        """
        ...

    def after_update(self) -> None:
        """Restores constraints (unit decoder rows) after the optimiser moved the weights."""
        ...

    def export(self, sae: Sae) -> None:
        """Copies the weights into the SAE."""
        ...
