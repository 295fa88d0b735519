"""The trainer of this package."""

import torch
from torch import Tensor

from fulcrum.bench.train_peers.contender import Spec
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.initialise import set_initial_weights, set_normalisation
from fulcrum.science.sae.training.update import Updater
from fulcrum.science.sae.variants import build_sae


class Ours:
    """`Updater` with the trainer's normalisation and initialisation."""

    def __init__(self, spec: Spec) -> None:
        self.config = TrainConfig(
            spec.variant,
            spec.d_in,
            spec.d_sae,
            n_tokens=spec.n_steps * spec.batch_size,
            k=spec.k,
            prefixes=tuple(spec.prefixes) if spec.variant == "matryoshka" else (),
            batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            dead_after_tokens=spec.dead_after,
            seed=spec.seed,
        )
        self._sae = build_sae(self.config.sae_config()).requires_grad_(False)
        self._updater: Updater | None = None

    def prepare(self, x: Tensor) -> None:
        """Normalisation statistics and data-point initialisation."""
        set_normalisation(self._sae, x, self.config.subtract_mean, self.config.rescale)
        set_initial_weights(self._sae, x, self.config)
        self._updater = Updater(self._sae, self.config)

    def update(self, x: Tensor) -> None:
        """One step."""
        assert self._updater is not None
        self._updater.update(self._sae.normalise(x))

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """With the saved threshold where there is one."""
        assert self._updater is not None
        self._updater.export(self._sae)
        z = self._sae.encode(x)
        return self._sae.decode(z), z > 0
