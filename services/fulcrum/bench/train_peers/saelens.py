"""SAELens."""

import importlib
from typing import Any

import torch
from torch import Tensor

from fulcrum.bench.train_peers.contender import Spec

_CLASSES = {
    "topk": "TopKTrainingSAE",
    "batch_topk": "BatchTopKTrainingSAE",
    "matryoshka": "MatryoshkaBatchTopKTrainingSAE",
}


class SaeLens:
    """Its `SAETrainer.step`, with its defaults or with its option of sparse activations."""

    def __init__(self, spec: Spec, sparse: bool = False) -> None:
        sae_lens = importlib.import_module("sae_lens")
        trainer = importlib.import_module("sae_lens.training.sae_trainer")
        config = importlib.import_module("sae_lens.config")
        torch.manual_seed(spec.seed)
        fields: dict[str, Any] = {"d_in": spec.d_in, "d_sae": spec.d_sae, "k": spec.k}
        fields["normalize_activations"] = "expected_average_only_in"
        if sparse:
            # Its sparse products have no backward on a CPU when latents are rescaled by decoder norms.
            fields |= {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
        if spec.variant == "matryoshka":
            fields["matryoshka_widths"] = spec.prefixes
        name = _CLASSES[spec.variant]
        self._sae = getattr(sae_lens, name)(getattr(sae_lens, f"{name}Config")(**fields))
        self._batch = torch.empty(0)
        cfg = config.SAETrainerConfig(
            total_training_samples=spec.n_steps * spec.batch_size,
            train_batch_size_samples=spec.batch_size,
            lr=spec.learning_rate,
            lr_end=spec.learning_rate / 10,
            lr_warm_up_steps=spec.warmup_steps,
            lr_decay_steps=spec.decay_steps,
            dead_feature_window=max(1, spec.dead_after // spec.batch_size),
        )
        self._trainer = trainer.SAETrainer(
            cfg=cfg, sae=self._sae, data_provider=iter(lambda: self._batch, None)
        )

    def prepare(self, x: Tensor) -> None:
        """Its scale of the activations."""
        self._batch = x
        self._trainer.activation_scaler.estimate_scaling_factor(
            d_in=x.shape[1], data_provider=self._trainer.data_provider, n_batches_for_norm_estimate=1
        )

    def update(self, x: Tensor) -> None:
        """One step of its trainer's public seam, and the count that `fit` keeps."""
        self._trainer.step(x)
        self._trainer.n_training_steps += 1

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """In its scaled units and back."""
        scale = self._trainer.activation_scaler.scaling_factor
        z = self._sae.encode(x * scale)
        x_hat = self._sae.decode(z) / scale
        return x_hat, (z.to_dense() if z.is_sparse else z) > 0
