"""One optimiser step after another: what the trainer does with a batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.dense_step import DenseStep
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.schedule import learning_rate
from fulcrum.science.sae.training.sparse_step import SparseStep
from fulcrum.science.sae.training.step import Step, StepResult


class Updater:
    """Weights, optimiser and dead-latent counts of a run; `sae` only gives the first weights."""

    def __init__(self, sae: Sae, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        self._config, self._ranks = config, ranks
        sparse = config.variant in ("topk", "batch_topk", "matryoshka")
        self._step: Step = SparseStep(sae, config, ranks) if sparse else DenseStep(sae, config)
        parameters = list(self._step.parameters.values())
        self._optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        self._since_fired = torch.zeros(config.d_sae, dtype=torch.long, device=sae.W_dec.device)
        self.n_steps = 0
        self.end = config.n_steps  # of the run; sooner when it stops early

    @property
    def dead_share(self) -> float:
        """Share of latents that have not fired for `dead_after` tokens."""
        return float((self._since_fired > self._config.dead_after).double().mean())

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        config = self._config
        shares = config.warmup_share, config.decay_share
        return learning_rate(self.n_steps, config.n_steps, config.learning_rate, *shares, self.end)

    def update(self, u: Float[Tensor, "n d_in"]) -> StepResult:
        """One step on this process's rows `u = N(x)` of a batch."""
        self._optimiser.param_groups[0]["lr"] = self.learning_rate
        dead = self._since_fired > self._config.dead_after
        result = self._step.gradients(u, dead, self.n_steps / self._config.n_steps)
        self._ranks.mean_(p.grad for p in self._step.parameters.values() if p.grad is not None)
        self._optimiser.step()
        self._step.after_update()
        self._since_fired += u.shape[0] * self._ranks.size
        self._since_fired[self._ranks.any(result.fired)] = 0
        self.n_steps += 1
        return result

    def export(self, sae: Sae) -> None:
        """Copies the weights into an SAE of the same shape."""
        self._step.export(sae)

    def state(self) -> dict[str, Tensor]:
        """Everything but the step count that the next step depends on."""
        tensors = {"since_fired": self._since_fired, **self._step.state}
        for name, parameter in self._step.parameters.items():
            tensors[name] = parameter
            for key, value in self._optimiser.state[parameter].items():
                tensors[f"{name}.{key}"] = value
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], n_steps: int) -> None:
        """Goes on from what `state` returned after `n_steps` steps."""
        self.n_steps = n_steps
        self._since_fired.copy_(tensors["since_fired"])
        for name, value in self._step.state.items():
            value.copy_(tensors[name])
        for name, parameter in self._step.parameters.items():
            parameter.copy_(tensors[name])
            keys = ("step", "exp_avg", "exp_avg_sq")
            device = parameter.device
            self._optimiser.state[parameter] = {k: tensors[f"{name}.{k}"].to(device).clone() for k in keys}
