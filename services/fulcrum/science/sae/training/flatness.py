"""Whether the loss of a run has stopped falling."""

from typing import Any

from torch import Tensor

from fulcrum.science.sae.training.config import TrainConfig

# A mean over fewer steps would be noise: of one batch of 2048 tokens the loss varies by a percent or two.
_LEAST_STEPS = 16
_WINDOW_SHARE = 0.05


class Flatness:
    """Compares the mean losses of windows of steps, from where warm-up and growing sparsity are over.

    Depends on the losses alone, so that a resumed run stops where one without a break does.
    """

    def __init__(self, config: TrainConfig) -> None:
        dense = config.variant in ("relu", "jumprelu", "gated")
        share = max(config.warmup_share, config.sparsity_warmup_share if dense else 0.0)
        self._first = round(config.n_steps * share)
        self._window = max(_LEAST_STEPS, round(config.n_steps * _WINDOW_SHARE))
        self._gain, self._patience = config.flat_gain, config.flat_windows
        self._sum: Tensor | float = 0.0
        self._n = self._n_flat = 0
        self._best: float | None = None

    def add(self, step: int, loss: Tensor) -> bool:
        """Takes the loss of the step (numbers from 1); whether the loss is flat now."""
        if step <= self._first:
            return False
        self._sum, self._n = self._sum + loss, self._n + 1  # no wait for the device before the window is full
        if self._n < self._window:
            return False
        mean = float(self._sum) / self._n
        self._sum, self._n = 0.0, 0
        if self._best is None or mean < (1 - self._gain) * self._best:
            self._best, self._n_flat = mean, 0
        else:
            self._n_flat += 1
        return self._n_flat >= self._patience

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sum": float(self._sum), "n": self._n, "n_flat": self._n_flat, "best": self._best}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self._sum, self._n = state["sum"], state["n"]
        self._n_flat, self._best = state["n_flat"], state["best"]
