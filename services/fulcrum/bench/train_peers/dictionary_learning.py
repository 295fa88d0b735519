"""dictionary_learning."""

import importlib
from typing import Any

import torch
from torch import Tensor

from fulcrum.bench.train_peers.contender import Spec

_TRAINERS = {
    "topk": ("top_k", "TopKTrainer"),
    "batch_topk": ("batch_top_k", "BatchTopKTrainer"),
    "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
}


class DictionaryLearning:
    """Its trainers' `update`, on activations of unit mean squared norm, as its `trainSAE` recommends."""

    def __init__(self, spec: Spec) -> None:
        module, name = _TRAINERS[spec.variant]
        trainer = getattr(importlib.import_module(f"dictionary_learning.trainers.{module}"), name)
        fields: dict[str, Any] = {}
        if spec.variant == "matryoshka":
            widths = spec.prefixes
            sizes = [b - a for a, b in zip([0, *widths[:-1]], widths, strict=True)]
            fields["group_fractions"] = [size / spec.d_sae for size in sizes]
        self._trainer = trainer(
            steps=spec.n_steps + 1,
            activation_dim=spec.d_in,
            dict_size=spec.d_sae,
            k=spec.k,
            layer=0,
            lm_name="",
            lr=spec.learning_rate,
            auxk_alpha=1 / 32,
            warmup_steps=spec.warmup_steps,
            decay_start=max(spec.warmup_steps + 1, spec.n_steps - spec.decay_steps),
            threshold_start_step=spec.warmup_steps,
            seed=spec.seed,
            device="cpu",
            **fields,
        )
        self._trainer.dead_feature_threshold = spec.dead_after
        self._norm = 1.0
        self._step = 0

    def prepare(self, x: Tensor) -> None:
        """Its normalisation factor."""
        self._norm = float(x.square().sum(1).mean().sqrt())

    def update(self, x: Tensor) -> None:
        """One step; the first one computes the geometric median."""
        self._trainer.update(self._step, x / self._norm)
        self._step += 1

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """With the batch rule, before its threshold has settled."""
        ae = self._trainer.ae
        z = ae.encode(x / self._norm, use_threshold=False)
        return ae.decode(z) * self._norm, z > 0
