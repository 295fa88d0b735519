"""A split tower whose rows share forwards with those of other requests."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulcrum.domain.hook_points import HookPoint
from fulcrum.engine.batch_queue import Rows
from fulcrum.engine.batching import Batcher
from fulcrum.engine.cores import cores_for
from fulcrum.engine.scopes import current_scope, in_scope
from fulcrum.science.vision.split import HookState
from fulcrum.science.vision.stack import Reach, VisionSplit


class BatchedTower:
    """A `SplitTower` that a `Batcher` runs. Without gradients rows are batched over requests; with them they run
    by themselves, on the device thread too.
    """

    def __init__(self, tower: VisionSplit, batcher: Batcher, model: Hashable) -> None:
        """`model` says whose forward it is (`computed_by`): rows of towers with the same one may be mixed."""
        self.hook_point: HookPoint = tower.hook_point
        self.d_in, self.n_tokens, self.grid, self.has_cls = (
            tower.d_in,
            tower.n_tokens,
            tower.grid,
            tower.has_cls,
        )
        self.n_prefix_tokens = tower.n_prefix_tokens
        self.widest_product = tower.widest_product
        self.reaches_output: Reach = tower.reaches_output
        self._tower, self._batcher = tower, batcher
        self._name = (model, str(tower.hook_point))

    def prefix(self, images: Tensor) -> HookState:
        """Activations of preprocessed images at the hook point; without gradients."""

        def run(rows: Rows) -> Rows:
            with cores_for(len(rows[0]) * self._tower.widest_product):
                state = self._tower.prefix(rows[0])
            return (state.x,) if state.carry is None else (state.x, state.carry)

        rows = self._batcher.submit((*self._name, "prefix"), (images,), run, self.widest_product)
        return HookState(*rows)

    def suffix(self, state: HookState) -> Tensor:
        """Image embedding, not normalised; differentiable with respect to `state.x`."""
        if torch.is_grad_enabled() and state.x.requires_grad:
            return self._suffix_with_gradient(state)
        rows: Rows = (state.x,) if state.carry is None else (state.x, state.carry)
        name = (*self._name, "suffix")
        return self._batcher.submit(name, rows, self._run_suffix, self.widest_product)[0]

    def _run_suffix(self, rows: Rows) -> Rows:
        with cores_for(len(rows[0]) * self._tower.widest_product):
            return (self._tower.suffix(HookState(*rows)),)

    def _suffix_with_gradient(self, state: HookState) -> Tensor:
        if state.x.device.type == "cpu":
            embeddings: Tensor = _OnDeviceThread.apply(state.x, state.carry, self._tower, self._batcher)
            return embeddings

        def run() -> Tensor:
            with torch.enable_grad():
                return self._tower.suffix(state)

        # The backward pass of an accelerator runs on autograd's own thread of that device.
        return self._batcher.run_alone(run)


class _OnDeviceThread(torch.autograd.Function):
    """Forward and backward of a suffix on the device thread: a CPU backward would run in the calling thread, and
    as many of them as there are requests would fight for the cores.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, carry: Tensor | None, tower: VisionSplit, batcher: Batcher) -> Tensor:
        product = len(x) * tower.widest_product

        def run() -> tuple[Tensor, Tensor]:
            with torch.enable_grad(), cores_for(product):
                leaf = x.detach().requires_grad_()
                return leaf, tower.suffix(HookState(leaf, carry))

        leaf, embeddings = batcher.run_alone(run, product)
        ctx.graph, ctx.product = (leaf, embeddings), product
        ctx.batcher, ctx.scope = batcher, current_scope()
        return embeddings.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        leaf, embeddings = ctx.graph

        def run() -> tuple[Tensor, ...]:
            with cores_for(ctx.product):
                gradients: tuple[Tensor, ...] = torch.autograd.grad(embeddings, leaf, gradient)
            return gradients

        with in_scope(ctx.scope):
            (of_x,) = ctx.batcher.run_alone(run, ctx.product)
        return of_x, None, None, None
