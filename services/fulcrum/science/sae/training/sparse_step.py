"""Loss and gradients of TopK, BatchTopK and Matryoshka SAEs, without autograd and without dense latents.

One dense product per step (the encoder's pre-activations, into a reused buffer). Everything after it works on
the active entries: decoding is a weighted embedding bag, its gradient with respect to the latents a product
of sampled rows, and both weight gradients are embedding bags over the transposed code, which share one sort.

With `u = N(x)`, residuals `r = x_hat - u` and n tokens, the loss is `sum |r|^2 / n`, for Matryoshka summed
over the prefixes, plus `aux_weight * sum |e_hat - e|^2 / n` where `e = u - x_hat` is constant and `e_hat`
decodes the `k_aux` largest dead latents (Gao et al. 2024, A.2).
"""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.selection import batch_top_k, top_k
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.ranks import ALONE, Ranks
from fulcrum.science.sae.training.step import StepResult


@dataclass(frozen=True)
class _Entries:
    """Selected entries ordered by bag; a bag is a token, for Matryoshka a (prefix, token) pair."""

    tokens: Int[Tensor, " nnz"]
    latents: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    bags: Int[Tensor, " nnz"]
    bag_offsets: Int[Tensor, " n_bags_plus_1"]


class SparseStep:
    """Holds the weights in training layout, their gradients, and the buffers of one step."""

    def __init__(self, sae: Sae, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        self._config, self._ranks = config, ranks
        _hear_of_sparse_tensors()
        # Encoder rows per latent, like the decoder's, so that both gradients are rows per latent.
        self.encoder = sae.W_enc.detach().T.contiguous().clone()
        self.b_enc = sae.b_enc.detach().clone()
        self.decoder = sae.W_dec.detach().clone()
        self.b_dec = sae.b_dec.detach().clone()
        self.theta: Tensor | None = None
        if config.variant in ("batch_topk", "matryoshka"):
            self.theta = torch.full((), -torch.inf, device=self.b_enc.device, dtype=self.b_enc.dtype)
        prefixes = config.sae_config().options.get("prefixes", [config.d_sae])
        self._prefixes = torch.tensor(prefixes, device=self.b_enc.device)
        self._pre: Tensor | None = None

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What the optimiser updates, by name."""
        return {"encoder": self.encoder, "b_enc": self.b_enc, "decoder": self.decoder, "b_dec": self.b_dec}

    @property
    def state(self) -> dict[str, Tensor]:
        """The running threshold of BatchTopK."""
        return {} if self.theta is None else {"theta": self.theta}

    @torch.no_grad()
    def gradients(self, u: Float[Tensor, "n d_in"], dead: Bool[Tensor, " d_sae"], share: float) -> StepResult:
        """Sets `.grad` of every parameter; `share` does not matter, because k is constant."""
        n, d_in = u.shape
        d_sae, n_prefixes = self._config.d_sae, self._prefixes.shape[0]
        centred = u - self.b_dec
        if self._pre is None or self._pre.shape[0] != n:
            self._pre = u.new_empty(n, d_sae)
        pre = torch.addmm(self.b_enc, centred, self.encoder.T, out=self._pre)
        entries = self._select(pre)

        # x_hat of every prefix minus u, and the gradient that reaches a latent: a latent adds to its own
        # prefix and to all wider ones.
        residuals = _bags(self.decoder, entries.latents, entries.values, entries.bag_offsets).view(
            n_prefixes, n, d_in
        )
        if n_prefixes > 1:
            residuals = residuals.cumsum(0)
        residuals -= centred
        grad_out = residuals.flip(0).cumsum(0).flip(0) if n_prefixes > 1 else residuals
        grad_out = grad_out.reshape(-1, d_in)
        scale = 2.0 / n

        # From here on entries stand by latent: a row of the decoder is read once for all its tokens.
        order = torch.sort(entries.latents, stable=True).indices
        latents, bags, values = entries.latents[order], entries.bags[order], entries.values[order]
        counts = torch.bincount(latents, minlength=d_sae)
        offsets = _offsets(counts)
        grad_values = _sampled_products(grad_out, bags, self.decoder, latents, offsets)
        grad_pre = grad_values.mul_(values > 0).mul_(scale)
        grad_decoder = _bags(grad_out, bags, values * scale, offsets)
        # Only what is tangential to the sphere: renormalising would undo the radial part anyway. That of row j is
        # <d_j, sum of v grad_out>, a sum of products at hand.
        radial = torch.segment_reduce(values * grad_pre, "sum", lengths=counts, initial=0)
        grad_decoder.addcmul_(self.decoder, radial[:, None], value=-1.0)
        grad_encoder = _bags(centred, entries.tokens[order], grad_pre, offsets)
        # Not index_add: on CUDA its sum would depend on the order of atomics.
        grad_b_enc = torch.segment_reduce(grad_pre, "sum", lengths=counts, initial=0)
        if self._config.aux_weight > 0 and bool(dead.any()):
            self._add_aux(pre, centred, residuals[-1], dead, grad_encoder, grad_decoder, grad_b_enc)
        # Each prefix's x_hat holds b_dec once; the encoder sees it with the opposite sign.
        grad_b_dec = residuals.sum((0, 1)).mul_(scale) - grad_b_enc @ self.encoder
        self.encoder.grad, self.b_enc.grad = grad_encoder, grad_b_enc
        self.decoder.grad, self.b_dec.grad = grad_decoder, grad_b_dec

        active = entries.values > 0
        fired = torch.zeros_like(dead)
        fired[entries.latents[active]] = True
        return StepResult(residuals, fired, active.sum())

    @torch.no_grad()
    def after_update(self) -> None:
        """Puts decoder rows back on the unit sphere."""
        self.decoder.div_(torch.linalg.vector_norm(self.decoder, dim=1, keepdim=True).clamp_(min=1e-8))

    @torch.no_grad()
    def export(self, sae: Sae) -> None:
        """Copies the weights, and the threshold where there is one, into the SAE."""
        sae.W_enc.copy_(self.encoder.T)
        sae.b_enc.copy_(self.b_enc)
        sae.W_dec.copy_(self.decoder)
        sae.b_dec.copy_(self.b_dec)
        if self.theta is not None:
            sae.get_buffer("theta").copy_(self.theta.clamp(min=0.0))

    def _select(self, pre: Float[Tensor, "n d_sae"]) -> _Entries:
        """Indices are int32: the embedding bags are twice as fast with them."""
        n, d_sae = pre.shape
        k = self._config.k
        if self.theta is None:
            values, latents = top_k(pre, k)
            tokens = torch.arange(n, device=pre.device, dtype=torch.int32).repeat_interleave(k)
            offsets = torch.arange(0, n * k + 1, k, device=pre.device, dtype=torch.int32)
            return _Entries(
                tokens, latents.reshape(-1).int(), torch.relu(values.reshape(-1)), tokens, offsets
            )
        values, flat = self._largest_of_batch(pre)
        positive = values > 0
        values, flat = values[positive], flat[positive]
        self._update_theta(values)
        tokens = torch.div(flat, d_sae, rounding_mode="floor")
        latents = flat - tokens * d_sae
        bags = tokens
        if self._prefixes.shape[0] > 1:
            bags = torch.bucketize(latents, self._prefixes, right=True) * n + tokens
            bags, order = torch.sort(bags, stable=True)
            tokens, latents, values = tokens[order], latents[order], values[order]
        offsets = _offsets(torch.bincount(bags, minlength=n * self._prefixes.shape[0]))
        return _Entries(tokens.int(), latents.int(), values, bags.int(), offsets)

    def _largest_of_batch(
        self, pre: Float[Tensor, "n d_sae"]
    ) -> tuple[Float[Tensor, " n_kept"], Int[Tensor, " n_kept"]]:
        assert self.theta is not None
        n_keep = pre.shape[0] * self._config.k
        guess = float(self.theta) * 0.8 if self.theta > 0 else -torch.inf
        if self._ranks.size == 1:
            return batch_top_k(pre, n_keep, guess)
        # The largest of the whole batch may all be here.
        n_keep *= self._ranks.size
        values, flat = batch_top_k(pre, min(n_keep, pre.numel()), guess)
        least = torch.topk(self._ranks.gather(values), n_keep, sorted=False).values.min()
        kept = values >= least
        return values[kept], flat[kept]

    def _update_theta(self, kept: Float[Tensor, " nnz"]) -> None:
        assert self.theta is not None
        smallest = kept.min() if kept.numel() else kept.new_full((), torch.inf)
        smallest = self._ranks.smallest(smallest)
        if not torch.isfinite(smallest):
            return
        rate = self._config.theta_rate
        # The first batch sets it: starting from 0 would leave a short run with a threshold far too low.
        started = torch.isfinite(self.theta)
        self.theta.copy_(torch.where(started, (1 - rate) * self.theta + rate * smallest, smallest))

    def _add_aux(
        self,
        pre: Tensor,
        centred: Tensor,
        residual: Tensor,
        dead: Tensor,
        grad_encoder: Tensor,
        grad_decoder: Tensor,
        grad_b_enc: Tensor,
    ) -> None:
        """Adds AuxK's gradients, from dense products over the dead columns alone."""
        columns = torch.nonzero(dead).squeeze(1)
        z = torch.relu(pre[:, columns])
        k_aux = min(self._config.k_aux or max(1, self._config.d_in // 2), columns.shape[0])
        if k_aux < columns.shape[0]:
            kept = torch.topk(z, k_aux, dim=1, sorted=False)
            z = torch.zeros_like(z).scatter_(1, kept.indices, kept.values)
        rows = self.decoder[columns]
        # e_hat - e with e = u - x_hat = -residual
        grad_e = torch.addmm(residual, z, rows).mul_(2.0 * self._config.aux_weight / z.shape[0])
        grad_z = (grad_e @ rows.T).mul_(z > 0)
        grad_rows = z.T @ grad_e
        remove_radial(grad_rows, rows)
        grad_decoder[columns] += grad_rows
        grad_encoder[columns] += grad_z.T @ centred
        grad_b_enc[columns] += grad_z.sum(0)


def remove_radial(grad: Float[Tensor, "d_sae d_in"], rows: Float[Tensor, "d_sae d_in"]) -> None:
    """Keeps, in place, what is tangential to the sphere; renormalising would undo the radial part anyway."""
    grad.addcmul_(rows, (grad * rows).sum(1, keepdim=True), value=-1.0)


def _bags(table: Tensor, rows: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Sum of `weights * table[rows]` within each bag."""
    return F.embedding_bag(
        rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _sampled_products(
    grad_out: Tensor, bags: Tensor, decoder: Tensor, latents: Tensor, offsets: Tensor
) -> Tensor:
    """`grad_out[bag] . decoder[latent]` per entry, by latent, without gathering the rows."""
    if decoder.device.type == "cpu":
        # 30 ms for 131 072 entries of 768 dimensions, and 48 ms the other way.
        code = torch.sparse_csr_tensor(
            offsets, bags, torch.zeros_like(bags, dtype=decoder.dtype), (decoder.shape[0], grad_out.shape[0])
        )
        sampled: Tensor = torch.sparse.sampled_addmm(code, decoder, grad_out.T, beta=0.0)
        return sampled.values()
    # The gradient that an embedding bag over grad_out would have, were the decoder the gradient of its sums.
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        decoder, grad_out, bags, offsets, latents, 0
    )
    return products


def _hear_of_sparse_tensors() -> None:
    """Lets torch say once, to nobody, that tensors in CSR are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [1.0])


def _offsets(counts: Tensor) -> Tensor:
    offsets = torch.zeros(counts.shape[0] + 1, dtype=torch.int32, device=counts.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets
