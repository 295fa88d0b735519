"""overcomplete."""

import importlib

import torch
from torch import Tensor

from fulcrum.bench.train_peers.contender import Spec

# Weight of the term that revives dead codes, as in its documentation's example.
_REANIMATION = 1e-3


class Overcomplete:
    """Its `train_sae` on one batch at a time, with the criterion of its documentation's TopK example."""

    def __init__(self, spec: Spec) -> None:
        # Its plots, which it imports first, use a function that matplotlib 3.9 removed.
        matplotlib = importlib.import_module("matplotlib")
        if not hasattr(matplotlib.cm, "get_cmap"):
            matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap
        package = importlib.import_module("overcomplete.sae")
        torch.manual_seed(spec.seed)
        if spec.variant == "topk":
            self._sae = package.TopKSAE(spec.d_in, spec.d_sae, top_k=spec.k)
        else:
            self._sae = package.BatchTopKSAE(spec.d_in, spec.d_sae, top_k=spec.k * spec.batch_size)
        self._train = importlib.import_module("overcomplete.sae.train").train_sae
        self._optimiser = torch.optim.Adam(self._sae.parameters(), lr=spec.learning_rate)
        self._spec = spec
        self._step = 0

    def prepare(self, x: Tensor) -> None:
        """Nothing."""

    def update(self, x: Tensor) -> None:
        """One step."""
        self._optimiser.param_groups[0]["lr"] = self._spec.rate(self._step)
        self._train(self._sae, [x], _criterion, self._optimiser, nb_epochs=1, monitoring=0)
        self._step += 1

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """In evaluation mode."""
        self._sae.eval()
        _, z, x_hat = self._sae(x)
        self._sae.train()
        return x_hat, z > 0


def _criterion(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
    dead = ((codes > 0).sum(0) == 0).float().detach()
    return (x - x_hat).square().mean() - _REANIMATION * (pre_codes * dead[None]).mean()
