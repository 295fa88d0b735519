"""EleutherAI's sparsify (`eai-sparsify`), the fastest public trainer."""

import importlib
import os

import torch
from torch import Tensor

from fulcrum.bench.train_peers.contender import Spec


class Sparsify:
    """Its SparseCoder, with the body of its `Trainer.fit`, which itself only reads language models.

    Adam instead of its default Signum, because the other trainers use Adam, and AuxK on, as the others have
    it.
    """

    def __init__(self, spec: Spec) -> None:
        # Its Triton decoder needs a GPU; this switch is its own.
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1" if not torch.cuda.is_available() else "0")
        sparsify = importlib.import_module("sparsify")
        torch.manual_seed(spec.seed)
        config = sparsify.SparseCoderConfig(num_latents=spec.d_sae, k=spec.k)
        self._spec = spec
        self._sae = sparsify.SparseCoder(spec.d_in, config, device="cpu", dtype=torch.float32)
        self._optimiser = torch.optim.Adam(self._sae.parameters(), lr=spec.learning_rate)
        self._since_fired = torch.zeros(spec.d_sae, dtype=torch.long)
        self._step = 0

    def prepare(self, x: Tensor) -> None:
        """`b_dec` starts at the mean."""
        self._sae.b_dec.data = x.mean(0)

    def update(self, x: Tensor) -> None:
        """The order of its training loop."""
        self._sae.set_decoder_norm_to_unit_norm()
        dead = self._since_fired > self._spec.dead_after
        variance = (x - x.mean(0)).pow(2).sum()
        out = self._sae(x=x, y=x, dead_mask=dead, total_variance=variance)
        fired = torch.zeros_like(dead)
        fired[out.latent_indices.flatten()] = True
        (out.fvu + 1 / 32 * out.auxk_loss).backward()
        self._sae.remove_gradient_parallel_to_decoder_directions()
        self._optimiser.param_groups[0]["lr"] = self._spec.rate(self._step)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._since_fired += x.shape[0]
        self._since_fired[fired] = 0
        self._step += 1

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode."""
        self._sae.set_decoder_norm_to_unit_norm()
        out = self._sae.encode(x)
        active = torch.zeros(x.shape[0], self._spec.d_sae, dtype=torch.bool)
        active.scatter_(1, out.top_indices, out.top_acts > 0)
        return self._sae.decode(out.top_acts, out.top_indices), active
